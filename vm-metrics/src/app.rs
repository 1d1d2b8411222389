//! Wires a configuration to the manager, and in the daemon to exporters and HTTP.

#[cfg(feature = "daemon")]
mod serve;

#[cfg(feature = "daemon")]
use crate::config::Settings;
use crate::config::{Config, ConfigError, Document};
#[cfg(feature = "daemon")]
use crate::exporters;
use crate::manager::{Manager, ManagerError, Setup};
use crate::readers::Purpose;

/// A checked configuration, with nothing started.
#[derive(Debug)]
pub struct App {
    setup: Setup,
    #[cfg(feature = "daemon")]
    exporters: exporters::ExportersConfig,
}

impl App {
    /// # Errors
    /// All mistakes of the configuration.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        Self::configure(config.clone()).or_else(|_| Self::load(config.into_document(), |_| ()))
    }

    /// Reads and checks a configuration; `adjust` applies the options of the command line.
    pub(crate) fn load(document: Document, adjust: impl Fn(&mut Config)) -> Result<Self, ConfigError> {
        document.check_all(|document| {
            let mut config = Config::of(document)?;
            adjust(&mut config);
            Self::configure(config)
        })
    }

    /// The first mistake is the error.
    fn configure(config: Config) -> Result<Self, ConfigError> {
        #[cfg(feature = "daemon")]
        let exporters = config.exporters.clone();
        let setup = Setup::of(config)?;
        Ok(Self {
            #[cfg(feature = "daemon")]
            exporters: exporters::configure(exporters, &setup.settings)?,
            setup,
        })
    }

    #[cfg(feature = "daemon")]
    pub(crate) fn settings(&self) -> &Settings {
        &self.setup.settings
    }

    /// Starts the readers, for a caller that ticks by itself.
    pub fn into_manager(self, purpose: Purpose) -> Result<Manager, ManagerError> {
        self.setup.start(purpose)
    }
}
