//! The table `[exporters]` of the configuration.

use serde::Deserialize;

use super::budget::{Budget, OverBudget};
use super::metrics::SeriesGroup;
use super::otlp::{self, OtlpConfig};
use crate::config::{ConfigError, Section, Sections, Settings};

/// The checked configuration of all exporters.
#[derive(Debug, Default)]
pub(crate) struct ExportersConfig {
    pub(crate) prometheus: PrometheusConfig,
    pub(crate) otlp: Option<OtlpConfig>,
}

/// The checked configuration of `/metrics`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PrometheusConfig {
    pub(super) budget: Budget,
    pub(super) groups: Vec<SeriesGroup>,
}

/// Reads the sections, and the variables of the environment for OTLP.
pub(crate) fn configure(mut sections: Sections, settings: &Settings) -> Result<ExportersConfig, ConfigError> {
    let prometheus = prometheus(&sections.take("prometheus"))?;
    let otlp = otlp::configure(&sections.take("otlp"), settings, &|name| std::env::var(name).ok())?;
    sections.none_left()?;
    Ok(ExportersConfig { prometheus, otlp })
}

/// `/metrics` is always on.
fn prometheus(section: &Section) -> Result<PrometheusConfig, ConfigError> {
    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct PrometheusKeys {
        label_budget: usize,
        over_budget: OverBudget,
        groups: Vec<SeriesGroup>,
    }
    if section.has("enabled")? {
        return Err(section.refusal("enabled", "/metrics cannot be switched off"));
    }
    let PrometheusKeys { label_budget, over_budget, groups } = section.options()?;
    Ok(PrometheusConfig { budget: Budget::new(label_budget, over_budget), groups })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn parse(text: &str) -> Result<ExportersConfig, String> {
        let config = Config::parse(Path::new("test.toml"), text).unwrap();
        configure(config.exporters, &config.settings).map_err(|error| error.to_string())
    }

    #[test]
    fn a_label_budget_is_off_by_default() {
        assert_eq!(parse("").unwrap().prometheus.budget, Budget::default());
        let aggregate = "[exporters.prometheus]\nlabel_budget = 5\nover_budget = \"aggregate\"\n";
        let budget = Budget { vms: 5, over: OverBudget::Aggregate };
        assert_eq!(parse(aggregate).unwrap().prometheus.budget, budget);
    }

    #[test]
    fn groups_are_named_one_by_one() {
        let groups = |keys| parse(&format!("[exporters.prometheus]\n{keys}")).unwrap().prometheus.groups;
        assert_eq!(groups(""), []);
        assert_eq!(groups("groups = [\"all\"]"), [SeriesGroup::All]);
        assert_eq!(groups("groups = [\"vcpus\", \"wire\"]"), [SeriesGroup::Vcpus, SeriesGroup::Wire]);
    }

    #[test]
    fn errors_name_file_line_and_key() {
        for (text, expected) in [
            ("[exporters.statsd]\n", "test.toml:1: exporters.statsd: no such section"),
            (
                "[exporters.prometheus]\nenabled = false\n",
                "test.toml:2: exporters.prometheus: enabled: /metrics",
            ),
            ("[exporters.prometheus]\nlabel_budget = -1\n", "test.toml:2: exporters.prometheus: "),
            (
                "[exporters.prometheus]\nover_budget = \"drop\"\n",
                "test.toml:2: exporters.prometheus: must be \"warn\" or \"aggregate\"",
            ),
            (
                "[exporters.prometheus]\ngroups = [\"base\"]\n",
                "test.toml:2: exporters.prometheus: must be one of \"all\", \"memory\", \"process\", ",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{text:?} gives {error:?}");
        }
    }
}
