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

/// Becomes the daemon, so that its signals and its exit code are the caller's.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let daemon = build::build(workspace, &build::Options::default())?;
    let error = Command::new(&daemon).arg("serve").args(&options.arguments).exec();
    Err(anyhow!(error).context(format!("cannot run {}", daemon.display())))
}
