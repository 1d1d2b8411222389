//! `cargo xtask`: the one entry point to building, running and testing, the same for people and for CI.
//!
//! One file per subcommand; each turns its options into calls of cargo and of the testkit.

mod build;
mod check;
mod command;
mod run;
mod test;
mod tidy;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build the daemon with its eBPF programs inside, and install what that needs.
    Build(build::Options),
    /// Build, then run `vm-metrics serve` on this host.
    Run(run::Options),
    /// Run everything this machine can test, and say what was skipped and why.
    Test(test::Options),
    /// Formatting, lints, documentation and the rules of the code's layout.
    Check,
}

fn main() -> ExitCode {
    match Cli::parse().task.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Task {
    fn run(&self) -> anyhow::Result<()> {
        let workspace = Workspace::find()?;
        match self {
            Self::Build(options) => build::build(&workspace, options).map(drop),
            Self::Run(options) => run::run(&workspace, options),
            Self::Test(options) => test::test(&workspace, options),
            Self::Check => check::check(&workspace),
        }
    }
}
