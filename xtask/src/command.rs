//! Runs other programs; each failure names the command line.

use std::env;
use std::ffi::OsString;
use std::iter;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// Returns the cargo that runs this xtask, at the top of the workspace.
pub fn cargo(workspace: &Workspace, subcommand: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.arg(subcommand).current_dir(&workspace.root);
    command
}

/// Runs a command; its output goes to the caller's.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", line(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", line(command));
    }
    Ok(())
}

/// Runs a command and returns its trimmed output.
pub fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {}", line(command)))?;
    if !output.status.success() {
        bail!("{} failed ({})", line(command), output.status);
    }
    let text = String::from_utf8(output.stdout).with_context(|| format!("output of {}", line(command)))?;
    Ok(text.trim().to_owned())
}

/// Returns the approximate shell form of the command.
pub fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words: Vec<_> = iter::once(program).chain(command.get_args()).collect();
    words.join(" ".as_ref()).to_string_lossy().into_owned()
}
