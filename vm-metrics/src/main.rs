//! The daemon: parse the command line, run the command, turn what went wrong into an exit code.

use std::env;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use vm_metrics::cli::Cli;
use vm_metrics::config::ConfigError;

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
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .finish()
        .with(filter_fn(is_news))
        .init();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(if error.is::<ConfigError>() { USAGE } else { 1 })
        }
    }
}

/// Of OpenTelemetry only that a collector refused a part: all else that it logs the daemon says itself, once and not with
/// every push.
fn is_news(metadata: &Metadata<'_>) -> bool {
    !metadata.target().starts_with("opentelemetry") || metadata.name().ends_with("PartialSuccess")
}

/// What the variable asks for; the level of the command when it is not set.
fn log_filter(level: &str) -> Result<EnvFilter, String> {
    let Some(text) = env::var_os(LOG_VARIABLE) else { return Ok(EnvFilter::new(level)) };
    let text = text.to_string_lossy();
    EnvFilter::try_new(&text).map_err(|error| format!("{text:?} is no log filter such as \"debug\": {error}"))
}
