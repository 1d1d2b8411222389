//! Makes a manager from a configuration, or the baseline that attaches nothing.

use thiserror::Error;

use super::{Manager, ManagerError};
use crate::config::{Config, ConfigError, Document, Settings};
use crate::host::Host;
use crate::readers::{self, Purpose, ReaderConfig};
use crate::sources::{self, SourceContext, Sources};

/// The sources and readers of a configuration, checked. Nothing is started.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) settings: Settings,
    pub(crate) sources: Sources,
    pub(crate) readers: Vec<ReaderConfig>,
}

impl Setup {
    /// The first mistake is the error.
    pub(crate) fn of(config: Config) -> Result<Self, ConfigError> {
        let Config { settings, sources, readers, .. } = config;
        let context = SourceContext::new(settings.host.clone(), settings.trust.clone(), settings.retention);
        Ok(Self {
            sources: sources::configure(sources, &context)?,
            readers: readers::configure(readers)?,
            settings,
        })
    }

    /// Starts the readers, for a caller that ticks by itself.
    pub(crate) fn start(self, purpose: Purpose) -> Result<Manager, ManagerError> {
        let Settings { host, retention, state_dir, trust, .. } = &self.settings;
        Manager::start(self.sources, self.readers, host, *retention, Some(state_dir), trust, purpose)
    }
}

/// Why a manager cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A component refuses to start.
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

    /// Makes a manager from a configuration, with its sources and its readers, the eBPF programs among them.
    /// The sections of exporters are for the daemon: they are not checked here.
    ///
    /// ```
    /// use std::path::Path;
    /// use vm_metrics::{Config, Manager, Purpose};
    ///
    /// let config = Config::parse(Path::new("example"), "[readers.tap_ebpf]\nenabled = false")?;
    /// let manager = Manager::with_config(config, Purpose::Look)?;
    /// assert!(manager.collect().components.iter().any(|component| component.name == "proc_scan"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the configuration is wrong, or going on would harm, for example because a daemon has the pins.
    pub fn with_config(config: Config, purpose: Purpose) -> Result<Self, StartError> {
        let check = |document: &Document| Setup::of(Config::of(document)?);
        let setup = Setup::of(config.clone()).or_else(|_| config.into_document().check_all(check))?;
        Ok(setup.start(purpose)?)
    }

    /// The baseline of one host, which may be made of files.
    pub(crate) fn baseline(host: &Host) -> Self {
        let start = || {
            let mut config = Config::builtin()?;
            config.readers.switch_off(readers::BY_EBPF);
            Ok::<_, StartError>(Self::start(
                Sources::new(Vec::new()),
                readers::configure(config.readers)?,
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
