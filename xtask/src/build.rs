//! `cargo xtask build`: the daemon, with the eBPF object inside.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::{
    command::{cargo, run},
    tools,
    workspace::Workspace,
};

#[derive(Debug, Default, Args)]
pub struct Options {
    /// Leave the eBPF programs out: only the /proc and sysfs baseline.
    #[arg(long)]
    no_ebpf: bool,
    /// Build without optimisation, into target/debug.
    #[arg(long)]
    debug: bool,
}

/// Returns the path of the daemon.
pub fn build(workspace: &Workspace, options: &Options) -> Result<PathBuf> {
    let mut cargo = cargo(workspace, "build");
    cargo.args(["--package", "vm-metrics", "--bin", "vm-metrics", "--features", "daemon"]);
    if options.no_ebpf {
        cargo.arg("--no-default-features");
    } else {
        tools::ensure_bpf(workspace)?;
    }
    if !options.debug {
        cargo.arg("--release");
    }
    run(&mut cargo)?;
    let daemon = workspace.daemon(if options.debug { "debug" } else { "release" });
    eprintln!("xtask: built {}", daemon.display());
    Ok(daemon)
}
