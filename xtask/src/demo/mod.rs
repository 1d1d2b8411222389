//! `cargo xtask demo`: stand-in VMs with real traffic, for newcomers.
//!
//! Each stand-in is a process that holds a TAP and moves real frames through it. The demo verifies at its end that
//! nothing remains.

mod config;
mod sample;
mod stop;
mod table;

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use vm_metrics_testkit::{
    daemon::Daemon,
    vm_process::StandIn,
    wait::{SOON, wait_until},
};

use self::{config::DemoVm, sample::Sample, stop::Stop};
use crate::{build, workspace::Workspace};

/// Only devices of the demo have this prefix.
const TAP_PREFIX: &str = "vmdemo";

const NET_DEVICES: &str = "/sys/class/net";

#[derive(Debug, Args)]
pub struct Options {
    /// Stop after this time; without it, on Ctrl-C.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Number of stand-in VMs.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    vms: u32,
}

pub fn demo(workspace: &Workspace, options: &Options) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "the demo makes TAP devices, and only root can");
    let daemon = build::build(workspace, &build::Options::default())?;
    let old = demo_devices()?;
    ensure!(old.is_empty(), "{} exist already: is another demo running?", old.join(", "));

    let mut pids = Vec::new();
    let shown = show(workspace, &daemon, options, &mut pids);
    let removed = check_removed(&pids);
    shown.and(removed)?;
    println!("removed all devices and processes of the demo");
    Ok(())
}

/// Makes the VMs, runs the daemon on them and prints its numbers. Every way out removes everything.
fn show(workspace: &Workspace, daemon: &Path, options: &Options, pids: &mut Vec<u32>) -> Result<()> {
    // From here on Ctrl-C starts the cleanup.
    let mut stop = Stop::new(options.seconds.map(Duration::from_secs))?;
    let dir = workspace.target.join("demo");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;

    let mut stand_ins = Vec::new();
    let mut vms = Vec::new();
    for number in 0..options.vms {
        let vm = DemoVm::new(number);
        // A build may have replaced the file at its path.
        let stand_in = StandIn::start(&vm.stand_in, Command::new("/proc/self/exe"))?;
        pids.push(stand_in.pid());
        vms.push(vm);
        stand_ins.push(stand_in);
    }
    let config = dir.join("config.toml");
    let text = config::render(vms.iter().zip(pids.iter().copied()));
    fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;

    let mut command = Command::new(daemon);
    command.args(["serve", "--listen", &config::listen_address(), "--config"]).arg(&config);
    let mut daemon = Daemon::start_command(command)?;
    pids.push(daemon.pid());
    watch(&mut stop, &daemon, &vms)?;
    let status = daemon.terminate()?;
    ensure!(status.success(), "the daemon ended with {status}; its log:\n{}", daemon.log());
    Ok(())
}

/// Prints one table a second from two scrapes.
fn watch(stop: &mut Stop, daemon: &Daemon, vms: &[DemoVm]) -> Result<()> {
    let mut before = None;
    let mut printed_lines = 0;
    while !stop.within_a_second() {
        let now = match Sample::take(daemon) {
            // A Ctrl-C at the terminal reaches the daemon too, perhaps first.
            Err(_) if stop.within_a_second() => break,
            sample => sample?,
        };
        if let Some(before) = &before {
            let rows: Vec<_> = vms.iter().map(|vm| sample::row(vm, before, &now)).collect();
            let table = table::render(&rows);
            let text =
                format!("{table}RX is what the guest receives. Scrape http://{}/metrics\n", daemon.address());
            print(&text, printed_lines)?;
            printed_lines = text.lines().count();
        }
        before = Some(now);
    }
    Ok(())
}

/// Prints the text; on a terminal it replaces the former one.
fn print(text: &str, printed_lines: usize) -> Result<()> {
    let mut out = io::stdout();
    let up_and_clear = match (out.is_terminal(), printed_lines) {
        (true, 1..) => format!("\x1b[{printed_lines}A\x1b[J"),
        _ => String::new(),
    };
    write!(out, "{up_and_clear}{text}").and_then(|()| out.flush()).context("cannot write the table")
}

/// Waits, because the kernel removes a TAP with programs slowly.
fn check_removed(pids: &[u32]) -> Result<()> {
    wait_until(SOON, "the demo's devices and processes to go", || {
        let processes = pids.iter().filter(|pid| Path::new("/proc").join(pid.to_string()).exists());
        Ok((demo_devices()?.is_empty() && processes.count() == 0).then_some(()))
    })
}

fn demo_devices() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(NET_DEVICES).with_context(|| format!("cannot list {NET_DEVICES}"))? {
        let name = entry.with_context(|| format!("cannot list {NET_DEVICES}"))?.file_name();
        names.extend(name.into_string().ok().filter(|name| name.starts_with(TAP_PREFIX)));
    }
    Ok(names)
}
