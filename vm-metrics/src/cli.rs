//! The command line and its commands.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::app::App;
use crate::config::{self, Config, ConfigError, Document, Listen, ListenAddress, LogFormat, Overrides};
use crate::model::{Printable, in_one_line};
use crate::terminal::print;
use crate::{doctor, log, readers, snapshot, version};

/// CPU, memory and network use of every VM on this host, read from the host with no agent in the guest.
#[derive(Debug, Parser)]
#[command(name = "vm-metrics", version, long_version = version::long())]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Level of the log: error, warn, info, debug or trace (key level in [log])
    #[arg(long, global = true, value_name = "LEVEL", value_parser = config::parse_log_level)]
    log_level: Option<String>,
    /// Format of the log: text, or json for one JSON object on each line (key format in [log])
    #[arg(long, global = true, value_name = "FORMAT", value_parser = config::parse_log_format)]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure the VMs and serve their metrics over HTTP until Ctrl-C or SIGTERM
    Serve(Serve),
    /// Print the usage of each VM, from the running daemon or else from one reading of this host
    Snapshot {
        #[command(flatten)]
        file: ConfigFile,
        /// Print JSON, as /api/v1/vms of the API
        #[arg(long)]
        json: bool,
        /// Repeat until Ctrl-C, with CPU in percent, bits and packets per second; INTERVAL is 2s by default
        #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "2s",
            value_parser = config::parse_interval)]
        watch: Option<Duration>,
        #[command(flatten)]
        asks: Asks,
    },
    /// Check each component on this host, with remedies
    Doctor {
        #[command(flatten)]
        file: ConfigFile,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Exit with 1 when an enabled component fails or works only partly
        #[arg(long)]
        strict: bool,
        #[command(flatten)]
        asks: Asks,
    },
    /// Detach the eBPF programs from the network devices of all VMs, and remove their counters; not those of a running daemon
    Detach {
        #[command(flatten)]
        file: ConfigFile,
        /// Also remove those of other versions and in all network namespaces; not those of running daemons
        #[arg(long)]
        all: bool,
    },
    /// Check a configuration file, or print the default one
    Config {
        #[command(subcommand)]
        action: ConfigAction,
    },
}

#[derive(Args, Debug)]
struct ConfigFile {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Args, Clone, Copy, Debug)]
struct Asks {
    /// Do not query the running daemon; read this host as the user of this command
    #[arg(long)]
    no_daemon: bool,
}

#[derive(Args, Debug)]
struct Serve {
    #[command(flatten)]
    file: ConfigFile,
    /// Addresses to listen on: ADDRESS:PORT, NAME:PORT, :PORT for all addresses, or unix:PATH; several with commas
    /// [default: 127.0.0.1:10464]
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    listen: Vec<ListenAddress>,
    /// Time between two readings, such as 1s or 250ms [default: 1s]
    #[arg(long, value_parser = config::parse_interval)]
    interval: Option<Duration>,
    /// Run without eBPF: read only /proc and the counters of the network devices
    #[arg(long)]
    no_ebpf: bool,
}

#[derive(Debug, Subcommand)]
enum ConfigAction {
    /// Report all mistakes in a file, and the keys that environment variables replace
    Check {
        /// Configuration file (TOML)
        file: PathBuf,
    },
    /// Print every key with its default
    PrintDefault,
}

impl Cli {
    /// # Errors
    /// When the configuration is wrong, or the command fails.
    pub fn run(self) -> anyhow::Result<()> {
        let variables = env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let (overrides, warnings) = Overrides::of(variables);
        let document = Config::document(self.command.file(), overrides.clone());
        let settings = document.as_ref().ok().and_then(|document| Config::of(document).ok());
        let settings = settings.map(|config| config.settings.log).unwrap_or_default();
        let level = self.log_level.or_else(|| settings.level.filter(|_| self.command.logs()));
        let level = level.as_deref().unwrap_or(if self.command.logs() { "info" } else { "error" });
        log::start(level, self.log_format.unwrap_or(settings.format));
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        self.command.run(document?, &overrides)
    }
}

impl Command {
    fn file(&self) -> Option<&Path> {
        match self {
            Self::Serve(Serve { file, .. })
            | Self::Snapshot { file, .. }
            | Self::Doctor { file, .. }
            | Self::Detach { file, .. } => file.config.as_deref(),
            Self::Config { action: ConfigAction::Check { file } } => Some(file),
            Self::Config { action: ConfigAction::PrintDefault } => None,
        }
    }

    /// Commands that print a report log only errors.
    fn logs(&self) -> bool {
        !matches!(self, Self::Snapshot { .. } | Self::Doctor { .. })
    }

    fn run(self, document: Document, overrides: &Overrides) -> anyhow::Result<()> {
        match self {
            Self::Serve(serve) => App::load(document, |config| serve.adjust(config))?.serve(),
            Self::Snapshot { json, watch, asks, .. } => {
                snapshot::run(document, snapshot::Options { json, watch, no_daemon: asks.no_daemon })
            }
            Self::Doctor { json, strict, asks, .. } => {
                let app = App::load(document, |_| ())?;
                doctor::run(app, doctor::Options { json, strict, no_daemon: asks.no_daemon })
            }
            Self::Detach { all, .. } => detach(document.check_all(Config::of)?, all),
            Self::Config { action: ConfigAction::Check { file } } => check(document, &file, overrides),
            Self::Config { action: ConfigAction::PrintDefault } => {
                document.check_all(Config::of)?;
                print(config::DEFAULT)
            }
        }
    }
}

impl Serve {
    fn adjust(&self, config: &mut Config) {
        if !self.listen.is_empty() {
            config.settings.listen = Listen::new(self.listen.clone(), "flag --listen");
        }
        config.settings.interval = self.interval.unwrap_or(config.settings.interval);
        if self.no_ebpf {
            config.readers.switch_off(readers::BY_EBPF);
        }
    }
}

fn detach(mut config: Config, all: bool) -> anyhow::Result<()> {
    let section = config.readers.take(readers::TAP_EBPF);
    let removed = readers::detach(&section, &config.settings.host, all)?;
    if removed.is_empty() {
        return print("nothing to detach\n");
    }
    let lines: Vec<String> = removed.iter().map(|line| Printable(line).to_string()).collect();
    print(&(lines.join("\n") + "\n"))
}

fn check(document: Document, file: &Path, overrides: &Overrides) -> anyhow::Result<()> {
    App::load(document, |_| ())?;
    let mut text = format!("{}: no faults found\n", Printable(file.display()));
    for (key, variable) in overrides.origins() {
        text += &format!("{key}: replaced by the variable {variable}\n");
    }
    print(&text)
}

/// Logs the failure of a command: one line for each mistake, and each cause once.
pub fn report(error: &anyhow::Error) {
    match error.downcast_ref::<ConfigError>() {
        Some(ConfigError::Several { errors }) => errors.iter().for_each(|error| tracing::error!("{error}")),
        _ => tracing::error!("{}", in_one_line(error.as_ref())),
    }
}
