//! The key `interval` of a reader that does not read in each tick.

use std::time::Duration;

use serde::Deserialize;

use crate::config::{ConfigError, Section, parse_duration_within};

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads the only key of the section.
pub(super) fn interval(section: &Section, default: Duration) -> Result<Duration, ConfigError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Keys {
        interval: Option<String>,
    }
    let Some(text) = section.options::<Keys>()?.interval else { return Ok(default) };
    parse_duration_within(&text, SHORTEST..=LONGEST).map_err(|problem| section.refusal("interval", &problem))
}
