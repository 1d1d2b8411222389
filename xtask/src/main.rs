//! `cargo xtask`: one entry point for people and for CI.
//!
//! It builds, runs and tests. Each subcommand has a file and calls cargo and the testkit.

mod bench;
mod build;
mod check;
mod command;
mod demo;
mod marked;
mod public_api;
mod run;
mod test;
mod tidy;
mod tools;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use vm_metrics_testkit::vm_process;

use crate::workspace::Workspace;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build the daemon with its eBPF programs inside, and install the tools for it.
    Build(build::Options),
    /// Build, then run `vm-metrics serve` on this host.
    Run(run::Options),
    /// Show VMs with live traffic on a host that has none: stand-ins, removed at the end.
    Demo(demo::Options),
    /// Measure the daemon beside plain reads, on many stand-in VMs; needs root.
    Bench(bench::Options),
    /// Run every test that this machine supports, and list the skipped ones with reasons.
    Test(test::Options),
    /// Run the privileged tests on other kernels, in guests.
    Vm(vm::Options),
    /// Formatting, lints, documentation and the rules of the code's layout.
    Check,
    /// Only the rules of words and layout: print every problem with its place.
    Tidy(tidy::Options),
}

fn main() -> ExitCode {
    // The stand-in VMs of the demo and the bench are instances of this program.
    let result = vm_process::run_if_asked().and_then(|()| Cli::parse().task.run());
    match result {
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
            Self::Demo(options) => demo::demo(&workspace, options),
            Self::Bench(options) => bench::bench(&workspace, options),
            Self::Test(options) => test::test(&workspace, options),
            Self::Vm(options) => vm::vm(&workspace, options),
            Self::Check => check::check(&workspace),
            Self::Tidy(options) => tidy::tidy(&workspace, options),
        }
    }
}
