//! The section `[log]`: level and format.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::ConfigError;

/// The keys of the section, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// `None`: the default level of the command.
    pub level: Option<String>,
    pub format: LogFormat,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object for each line.
    Json,
}

/// As typed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    level: Option<Spanned<String>>,
    format: LogFormat,
}

impl RawLog {
    /// `refuse` makes an error from a place and a problem.
    pub(super) fn resolve(
        self,
        refuse: impl Fn(Range<usize>, String) -> ConfigError,
    ) -> Result<LogSettings, ConfigError> {
        let Self { level, format } = self;
        if let Some(level) = &level {
            let problem = |problem| refuse(level.span(), format!("log.level: {problem}"));
            parse_log_level(level.get_ref()).map_err(problem)?;
        }
        Ok(LogSettings { level: level.map(Spanned::into_inner), format })
    }
}

/// A level, or `part=level` for parts of the program, with commas between them.
pub(crate) fn parse_log_level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |level: &str| LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level.trim()));
    let is_good =
        |directive: &str| is_level(directive.rsplit_once('=').map_or(directive, |(_, level)| level));
    if text.split(',').all(is_good) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "must be one of {}; also for a part of the program, such as \"info,vm_metrics::sources=debug\"",
        LEVELS.join(", ")
    ))
}

pub(crate) fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("must be text or json".to_owned()),
    }
}
