//! `cargo xtask run`: the daemon on this host, from a fresh build.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Result, anyhow};
use clap::Args;

use crate::{build, workspace::Workspace};

#[derive(Debug, Args)]
pub struct Options {
    /// Arguments of `vm-metrics serve`.
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

/// Executes the daemon, so that the caller has its signals and exit code.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let daemon = build::build(workspace, &build::Options::default())?;
    let error = Command::new(&daemon).arg("serve").args(&options.arguments).exec();
    Err(anyhow!(error).context(format!("cannot run {}", daemon.display())))
}
