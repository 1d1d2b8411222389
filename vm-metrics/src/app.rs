//! The wiring: config → sources and readers → manager; with the daemon also → exporters → HTTP.

#[cfg(feature = "daemon")]
mod serve;

use thiserror::Error;

use crate::config::{Config, ConfigError, Document, Settings};
#[cfg(feature = "daemon")]
use crate::exporters;
use crate::host::Host;
use crate::manager::{Manager, ManagerError};
use crate::readers::{self, Purpose, ReaderConfig};
use crate::sources::{self, SourceContext, Sources};

/// A configuration that is checked in every part. Nothing is started.
#[derive(Debug)]
pub struct App {
    settings: Settings,
    sources: Sources,
    readers: Vec<ReaderConfig>,
    #[cfg(feature = "daemon")]
    exporters: exporters::Configured,
}

impl App {
    /// # Errors
    /// When something is wrong with the configuration: all that is.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        Self::configure(config.clone()).or_else(|_| Self::load(config.into_document(), |_| ()))
    }

    /// Reads and checks a configuration; `adjust` is what the command line has to say.
    pub(crate) fn load(document: Document, adjust: impl Fn(&mut Config)) -> Result<Self, ConfigError> {
        document.check_all(|document| {
            let mut config = Config::of(document)?;
            adjust(&mut config);
            Self::configure(config)
        })
    }

    /// The first mistake is the error.
    fn configure(config: Config) -> Result<Self, ConfigError> {
        let Config { settings, sources, readers, .. } = config;
        let Settings { host, trust, retention, .. } = settings.clone();
        let context = SourceContext::new(host, trust, retention);
        Ok(Self {
            sources: sources::configure(sources, &context)?,
            readers: readers::configure(readers)?,
            #[cfg(feature = "daemon")]
            exporters: exporters::configure(config.exporters, &settings)?,
            settings,
        })
    }

    #[cfg(feature = "daemon")]
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Starts the readers, for those who want to tick themselves.
    pub fn into_manager(self, purpose: Purpose) -> Result<Manager, ManagerError> {
        let Settings { host, retention, state_dir, trust, .. } = &self.settings;
        Manager::start(self.sources, self.readers, host, *retention, Some(state_dir), trust, purpose)
    }
}

/// Why a manager cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Manager(#[from] ManagerError),
}

impl Manager {
    /// Reads processes and TAP devices, and attaches nothing: the baseline. It knows no VMs until a source is set.
    ///
    /// ```
    /// assert_eq!(vm_metrics::Manager::new().collect_all(), Ok(Vec::new()));
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::baseline(&Host::default())
    }

    /// Does what a configuration says, with its sources and its readers, the eBPF programs among them.
    ///
    /// ```
    /// use std::path::Path;
    /// use vm_metrics::{Config, Manager, readers::Purpose};
    ///
    /// let config = Config::parse(Path::new("example"), "[readers.tap_ebpf]\nenabled = false")?;
    /// let manager = Manager::with_config(config, Purpose::Look)?;
    /// assert!(manager.collect().parts.iter().any(|part| part.name == "proc_scan"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the configuration is wrong, or going on would harm, for example because a daemon has the pins.
    pub fn with_config(config: Config, purpose: Purpose) -> Result<Self, StartError> {
        Ok(App::new(config)?.into_manager(purpose)?)
    }

    /// Of one host, which may be made of files.
    pub(crate) fn baseline(host: &Host) -> Self {
        let start = || {
            let mut config = Config::builtin()?;
            config.readers.switch_off(readers::TAP_EBPF);
            let readers = readers::configure(config.readers)?;
            let none = Sources::new(Vec::new());
            Ok::<_, StartError>(Self::start(
                none,
                readers,
                host,
                config.settings.retention,
                None,
                &config.settings.trust,
                Purpose::Look,
            )?)
        };
        start().expect("the built-in configuration is good, and no reader of the baseline refuses to start")
    }
}

impl Default for Manager {
    fn default() -> Self {
        Self::new()
    }
}
