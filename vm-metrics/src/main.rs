//! The daemon: parse the command line, run the command, turn what went wrong into an exit code.

use std::env;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use vm_metrics::cli::Cli;
use vm_metrics::config::ConfigError;
use vm_metrics::log;

/// `EX_USAGE`: the command line or the configuration is wrong.
const USAGE: u8 = 64;

const LOG_VARIABLE: &str = "VM_METRICS_LOG";

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => {
            // Help and version are asked for; the rest is a mistake.
            let code = if message.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
            return if message.print().is_ok() { code } else { ExitCode::FAILURE };
        }
    };
    let filter = match log_filter(cli.log_level()) {
        Ok(filter) => filter,
        Err(problem) => {
            eprintln!("{LOG_VARIABLE}: {problem}");
            return ExitCode::from(USAGE);
        }
    };
    log::start(filter);
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(if error.is::<ConfigError>() { USAGE } else { 1 })
        }
    }
}

/// What the variable asks for; the level of the command when it is not set.
fn log_filter(level: &str) -> Result<EnvFilter, String> {
    let Some(text) = env::var_os(LOG_VARIABLE) else { return Ok(EnvFilter::new(level)) };
    let text = text.to_string_lossy();
    EnvFilter::try_new(&text).map_err(|error| format!("{text:?} is no log filter such as \"debug\": {error}"))
}
