//! The command line, and what each command does.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Parser, Subcommand};

use crate::app::App;
use crate::config::{self, Config, ConfigError, Listen, ListenAddress};
use crate::doctor;
use crate::exporters::{json::Vm, table};
use crate::model::{Health, PartKind, PartRun, Printable, Snapshot, VmStats, is_unsafe};
use crate::readers::{self, Purpose};

/// CPU, memory and network use of every VM on this host, read from the host with no agent in the guest.
#[derive(Debug, Parser)]
#[command(name = "vm-metrics", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch the VMs and serve their metrics over HTTP until SIGINT or SIGTERM
    Serve(Serve),
    /// Print all VMs once and leave
    Snapshot {
        #[command(flatten)]
        file: ConfigFile,
        /// As a JSON document instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Say what works on this host, what does not, and what would turn it on
    Doctor {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Take the programs off all TAPs and remove what is pinned; a daemon that runs keeps its own
    Detach {
        #[command(flatten)]
        file: ConfigFile,
        /// Also what other versions have pinned
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

#[derive(Args, Debug)]
struct Serve {
    #[command(flatten)]
    file: ConfigFile,
    /// Where to serve: ADDRESS:PORT, NAME:PORT, :PORT for all addresses, or unix:PATH; also several, with commas
    /// between them [default: 127.0.0.1:10464]
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    listen: Vec<ListenAddress>,
    /// Time between two ticks, such as 1s or 250ms [default: 1s]
    #[arg(long, value_parser = config::parse_interval)]
    interval: Option<Duration>,
    /// Count with the devices' own counters only
    #[arg(long)]
    no_ebpf: bool,
}

#[derive(Debug, Subcommand)]
enum ConfigAction {
    /// Check a file and say what is wrong with it
    Check { file: PathBuf },
    /// Print every key with its default
    PrintDefault,
}

impl Cli {
    /// What is logged unless `VM_METRICS_LOG` says otherwise: a command that reports itself has nothing to add.
    pub fn log_level(&self) -> &'static str {
        match self.command {
            Command::Serve(_) | Command::Detach { .. } | Command::Config { .. } => "info",
            Command::Snapshot { .. } | Command::Doctor { .. } => "error",
        }
    }

    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(serve) => serve.run(),
            Command::Snapshot { file, json } => snapshot(file.load()?, json),
            Command::Doctor { file } => doctor::run(file.load()?),
            Command::Detach { file, all } => detach(file.load()?, all),
            Command::Config { action } => match action {
                ConfigAction::Check { file } => check(&file),
                ConfigAction::PrintDefault => print(config::DEFAULT),
            },
        }
    }
}

impl ConfigFile {
    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self.config.as_deref())
    }
}

impl Serve {
    fn run(self) -> anyhow::Result<()> {
        let mut config = self.file.load()?;
        if !self.listen.is_empty() {
            config.settings.listen = Listen::new(self.listen, "flag --listen");
        }
        config.settings.interval = self.interval.unwrap_or(config.settings.interval);
        if self.no_ebpf {
            config.readers.switch_off(readers::TAP_EBPF);
        }
        App::new(config)?.serve()
    }
}

/// Programs that are attached for one reading have nothing to tell, so a snapshot is the devices' own counters.
fn snapshot(mut config: Config, json: bool) -> anyhow::Result<()> {
    config.readers.switch_off(readers::TAP_EBPF);
    let snapshot = App::new(config)?.into_manager(Purpose::Look)?.collect();
    let failure = source_failure(&snapshot);
    // Without a VM there is nothing to show but the failure: "none" would be a guess.
    if failure.is_none() || !snapshot.vms.is_empty() {
        print(&shown(&snapshot.vms, json)?)?;
    }
    failure.map_or(Ok(()), |failure| bail!("VMs may be missing: {failure}"))
}

/// The first source that could not list its VMs.
fn source_failure(snapshot: &Snapshot) -> Option<String> {
    let failed = |part: &&PartRun| part.kind == PartKind::Source && part.health.state == Health::Failed;
    let part = snapshot.parts.iter().find(failed)?;
    Some(format!("source {}: {}", part.name, part.health.reason))
}

fn shown(vms: &[VmStats], json: bool) -> serde_json::Result<String> {
    if json {
        let vms: Vec<Vm<'_>> = vms.iter().map(Vm::of).collect();
        return Ok(printable_json(&serde_json::to_string_pretty(&vms)?) + "\n");
    }
    if vms.is_empty() {
        return Ok(
            "no VMs found on this host (`vm-metrics doctor` says where they are looked for)\n".to_owned()
        );
    }
    Ok(table::render(vms))
}

/// The same document for a terminal. Only strings have such characters, and JSON has an escape sequence for each.
fn printable_json(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if !is_unsafe(character) || character == '\n' {
            printable.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(printable, "\\u{unit:04x}");
        }
    }
    printable
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

fn check(file: &Path) -> anyhow::Result<()> {
    App::new(Config::load(Some(file))?)?;
    print(&format!("{}: no faults found\n", file.display()))
}

/// To standard output; a reader that has gone away is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_for_a_terminal_is_the_same_document() {
        let name = "a\n\u{1b}\u{9b}2J\u{202e}\u{e0041}\u{7f}é";
        let printed = printable_json(&serde_json::to_string_pretty(&[name]).unwrap());
        assert!(printed.chars().all(|c| c == '\n' || !is_unsafe(c)), "{printed:?}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&printed).unwrap(), [name]);
    }
}
