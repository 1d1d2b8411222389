//! The variables that the specification of OpenTelemetry gives to every exporter.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::{ConfigError, check_duration};

/// Reads a variable.
pub(super) type VariableReader<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variables; an empty one counts as unset.
pub(super) struct Environment<'a>(pub(super) VariableReader<'a>);

/// The value of a variable, and its name for errors.
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: String,
}

impl Environment<'_> {
    /// Whether variables switch metrics off.
    pub(super) fn forbids(&self) -> bool {
        let says = |name, wanted: &str| {
            self.get(name).is_some_and(|variable| variable.value.eq_ignore_ascii_case(wanted))
        };
        says("OTEL_SDK_DISABLED", "true") || says("OTEL_METRICS_EXPORTER", "none")
    }

    pub(super) fn get(&self, name: &str) -> Option<Variable> {
        let value = (self.0)(name).filter(|value| !value.is_empty())?;
        Some(Variable { name: name.to_owned(), value })
    }

    /// `OTEL_EXPORTER_OTLP_METRICS_<name>`.
    pub(super) fn of_metrics(&self, name: &str) -> Option<Variable> {
        self.get(&format!("OTEL_EXPORTER_OTLP_METRICS_{name}"))
    }

    /// `OTEL_EXPORTER_OTLP_<name>`.
    pub(super) fn of_all_signals(&self, name: &str) -> Option<Variable> {
        self.get(&format!("OTEL_EXPORTER_OTLP_{name}"))
    }

    /// The one for metrics, else the one for all signals.
    pub(super) fn otlp(&self, name: &str) -> Option<Variable> {
        self.of_metrics(name).or_else(|| self.of_all_signals(name))
    }

    /// The attributes of `OTEL_RESOURCE_ATTRIBUTES`, and the name of `OTEL_SERVICE_NAME`, which overrides.
    pub(super) fn resource(&self) -> Result<BTreeMap<String, String>, ConfigError> {
        let mut attributes = match self.get("OTEL_RESOURCE_ATTRIBUTES") {
            Some(variable) => variable.pairs()?,
            None => BTreeMap::new(),
        };
        if let Some(variable) = self.get("OTEL_SERVICE_NAME") {
            attributes.insert("service.name".to_owned(), variable.value);
        }
        Ok(attributes)
    }
}

impl Variable {
    pub(super) fn refusal(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError::Environment { variable: self.name.clone(), problem: problem.into() }
    }

    pub(super) fn milliseconds(&self, bounds: &RangeInclusive<Duration>) -> Result<Duration, ConfigError> {
        let milliseconds = self.value.trim().parse();
        let duration = Duration::from_millis(
            milliseconds.map_err(|_| self.refusal("must be a number of milliseconds"))?,
        );
        check_duration(duration, bounds).map_err(|problem| self.refusal(problem))?;
        Ok(duration)
    }

    /// `key=value,key=value`, the values with percent signs decoded.
    pub(super) fn pairs(&self) -> Result<BTreeMap<String, String>, ConfigError> {
        let entries = self.value.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let pair = |entry: &str| {
            let (key, value) = entry.split_once('=')?;
            Some((key.trim().to_owned(), percent_decoded(value.trim())?))
        };
        // Not the value: it may be a secret.
        entries.map(|entry| pair(entry).ok_or_else(|| self.refusal("is not key=value,key=value"))).collect()
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(value: &str) -> Variable {
        Variable { name: "X".into(), value: value.into() }
    }

    #[test]
    fn pairs_are_decoded() {
        let pairs = variable("a=1, b = x%20%3d,c=d=e,").pairs().unwrap();
        let expected = [("a", "1"), ("b", "x ="), ("c", "d=e")];
        assert!(pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expected), "{pairs:?}");
        for wrong in ["a", "a=%4", "a=%zz", "a=%ff"] {
            let error = variable(wrong).pairs().unwrap_err().to_string();
            assert_eq!(error, "variable X: is not key=value,key=value");
        }
    }

    #[test]
    fn the_variable_for_metrics_overrides() {
        let read = |name: &str| match name {
            "OTEL_EXPORTER_OTLP_TIMEOUT" => Some("1".to_owned()),
            "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT" => Some("2".to_owned()),
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL" => Some(String::new()),
            _ => None,
        };
        let environment = Environment(&read);
        let any = Duration::ZERO..=Duration::MAX;
        let timeout = environment.otlp("TIMEOUT").unwrap().milliseconds(&any).unwrap();
        assert_eq!(timeout, Duration::from_millis(2));
        assert!(environment.otlp("PROTOCOL").is_none(), "an empty variable counts as unset");
        assert!(variable("1s").milliseconds(&any).is_err());
    }
}
