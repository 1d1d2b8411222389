//! The daemon: runs the command of the command line and sets the exit code.

use std::process::ExitCode;

use clap::Parser;
use vm_metrics::ConfigError;
use vm_metrics::cli::{self, Cli};

/// `EX_USAGE`: the command line or the configuration is wrong.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => {
            // Help and version are no error; all else is a mistake.
            let code = if message.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
            return if message.print().is_ok() { code } else { ExitCode::FAILURE };
        }
    };
    let Err(error) = cli.run() else { return ExitCode::SUCCESS };
    cli::report(&error);
    ExitCode::from(if error.is::<ConfigError>() { USAGE } else { 1 })
}
