//! Parses and checks the configuration; every error names file, line and key.

mod document;
mod environment;
mod error;
mod http;
mod keys;
mod listen;
mod log;
mod refused;
mod section;
mod trust;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

pub(crate) use document::Document;
pub(crate) use environment::Overrides;
pub use error::ConfigError;
pub(crate) use http::{ApiSocket, HttpSettings};
pub(crate) use listen::{Listen, ListenAddress};
pub use log::LogFormat;
pub(crate) use log::{LogSettings, parse_log_format, parse_log_level};
pub(crate) use section::{Section, Sections, Switch};

use self::listen::RawListen;
use crate::host::Host;
use crate::model::Trust;

/// Every key with its default, explained; `vm-metrics config print-default` prints it.
pub(crate) const DEFAULT: &str = include_str!("default.toml");

const SOURCES: &str = "sources";
const READERS: &str = "readers";
const EXPORTERS: &str = "exporters";

/// Shorter intervals cost CPU time without better numbers.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
const MAX_INTERVAL: Duration = Duration::from_secs(3600);

/// Each terminated VM is a set of series for this long.
const MAX_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// It is a part of each line of `/metrics`.
const MAX_PREFIX: usize = 64;

/// First parts of the names of the daemon's own metrics.
pub(crate) const OWN_PREFIXES: [&str; 2] = ["vm_exporter", "process"];

/// The configuration of the daemon. Sources, readers and exporters check their own sections.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) settings: Settings,
    document: Document,
    pub(crate) sources: Sections,
    pub(crate) readers: Sections,
    pub(crate) exporters: Sections,
}

/// The keys that belong to no source, no reader and no exporter, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub interval: Duration,
    /// How long the last numbers of a terminated VM are shown.
    pub retention: Duration,
    /// Directory of the state file; without it, the daemon keeps no state.
    pub state_dir: PathBuf,
    pub(crate) listen: Listen,
    pub(crate) http: HttpSettings,
    pub metric_prefix: String,
    pub host: Host,
    pub trust: Trust,
    pub(crate) log: LogSettings,
}

impl Config {
    /// The defaults of `default.toml`.
    pub fn builtin() -> Result<Self, ConfigError> {
        Self::parse(Path::new("built-in default"), "")
    }

    /// The file, or the defaults when there is none.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        Self::document(path, Overrides::default())?.check_all(Self::of)
    }

    /// The file, or an empty one, with the overrides of the environment, unchecked.
    pub(crate) fn document(path: Option<&Path>, overrides: Overrides) -> Result<Document, ConfigError> {
        let Some(path) = path else {
            return Ok(Document::with(Path::new("built-in default"), "", overrides));
        };
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Ok(Document::with(path, &text, overrides))
    }

    /// The time between two ticks of the daemon.
    ///
    /// ```
    /// assert_eq!(vm_metrics::Config::builtin()?.interval().as_secs(), 1);
    /// # Ok::<(), vm_metrics::ConfigError>(())
    /// ```
    pub fn interval(&self) -> Duration {
        self.settings.interval
    }

    /// `path` only names the text in errors.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        Document::new(path, text).check_all(Self::of)
    }

    /// The first mistake is the error.
    pub(crate) fn of(document: &Document) -> Result<Self, ConfigError> {
        let mut root = document.parse()?;
        for sections in [SOURCES, READERS, EXPORTERS] {
            root.get_mut().remove(sections);
        }
        let raw =
            Raw::deserialize(toml::de::Deserializer::from(root)).map_err(|error| document.error(&error))?;
        Self::resolve(raw, document)
    }

    /// The document that it comes from.
    pub(crate) fn into_document(self) -> Document {
        self.document
    }

    fn resolve(raw: Raw, document: &Document) -> Result<Self, ConfigError> {
        let at = |span, message: String| document.error_at(span, &message);
        let interval = parse_interval(raw.interval.get_ref())
            .map_err(|problem| at(raw.interval.span(), format!("interval: {problem}")))?;
        let retention = parse_retention(raw.retention.get_ref())
            .map_err(|problem| at(raw.retention.span(), format!("retention: {problem}")))?;
        let span = raw.listen.span();
        let place = match span.is_empty() {
            true => "the default of the flag --listen and the key listen".to_owned(),
            false => format!("{}, key listen", document.place(span.start)),
        };
        let listen = raw.listen.into_inner().resolve(&place, |problem| at(span.clone(), problem))?;
        check_prefix(raw.metric_prefix.get_ref())
            .map_err(|problem| at(raw.metric_prefix.span(), format!("metric_prefix: {problem}")))?;
        let metric_prefix = raw.metric_prefix.into_inner();
        let host = Host::new(raw.host.proc, raw.host.sys);
        let http = raw.http.resolve(&host, |span, problem| at(span, format!("http.{problem}")))?;
        let trust = raw.trust.resolve(|span, problem| at(span, format!("trust.{problem}")))?;
        let log = raw.log.resolve(at)?;
        let sources = Sections::new(SOURCES, document);
        let readers = Sections::new(READERS, document);
        let exporters = Sections::new(EXPORTERS, document);
        Ok(Self {
            settings: Settings {
                interval,
                retention,
                state_dir: raw.state_dir,
                listen,
                http,
                metric_prefix,
                host,
                trust,
                log,
            },
            document: document.clone(),
            sources,
            readers,
            exporters,
        })
    }
}

/// A duration such as `1s` or `250ms`, within the bounds of an interval.
pub(crate) fn parse_interval(text: &str) -> Result<Duration, String> {
    parse_duration_within(text, MIN_INTERVAL..=MAX_INTERVAL)
}

fn parse_retention(text: &str) -> Result<Duration, String> {
    parse_duration_within(text, Duration::ZERO..=MAX_RETENTION)
}

/// A duration within bounds. The problem does not repeat the text.
pub(crate) fn parse_duration_within(
    text: &str,
    bounds: RangeInclusive<Duration>,
) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    check_duration(duration, &bounds)?;
    Ok(duration)
}

/// Refuses a duration outside of its bounds.
pub(crate) fn check_duration(duration: Duration, bounds: &RangeInclusive<Duration>) -> Result<(), String> {
    if bounds.contains(&duration) {
        return Ok(());
    }
    let [shortest, longest] = [*bounds.start(), *bounds.end()].map(humantime::format_duration);
    Err(format!("must be between {shortest} and {longest}"))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "this is not a duration such as \"1s\" or \"250ms\"".to_owned())
}

fn check_prefix(prefix: &str) -> Result<(), String> {
    if prefix.len() > MAX_PREFIX {
        return Err(format!("must have at most {MAX_PREFIX} characters"));
    }
    let starts_well = prefix.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !prefix.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(format!(
            "{prefix:?} does not begin a metric name: letters, digits and _, no digit first"
        ));
    }
    if prefix.ends_with('_') {
        return Err(format!("{prefix:?} ends with _, which each name has behind it: leave that out"));
    }
    if prefix == "go" || prefix.starts_with("go_") {
        return Err(format!("{prefix:?}: go_ begins the names of all programs in Go"));
    }
    let is_below =
        |own: &&str| prefix.strip_prefix(*own).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
    match OWN_PREFIXES.into_iter().find(is_below) {
        None => Ok(()),
        Some(own) => Err(format!("{prefix:?}: {own}_ begins the names of the daemon's own metrics")),
    }
}

/// The keys at the top level, as typed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    interval: Spanned<String>,
    retention: Spanned<String>,
    state_dir: PathBuf,
    listen: Spanned<RawListen>,
    http: http::RawHttp,
    metric_prefix: Spanned<String>,
    host: RawHost,
    trust: trust::RawTrust,
    log: log::RawLog,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawHost {
    proc: PathBuf,
    sys: PathBuf,
}

impl Default for Raw {
    fn default() -> Self {
        let typed = |text: &str| Spanned::new(0..0, text.to_owned());
        Self {
            interval: typed("1s"),
            retention: typed("5m"),
            state_dir: "/run/vm-metrics".into(),
            listen: Spanned::new(0..0, RawListen::default()),
            http: http::RawHttp::default(),
            metric_prefix: typed("vm"),
            host: RawHost::default(),
            trust: trust::RawTrust::default(),
            log: log::RawLog::default(),
        }
    }
}

impl Default for RawHost {
    fn default() -> Self {
        let host = Host::default();
        Self { proc: host.proc().to_owned(), sys: host.sys().to_owned() }
    }
}

#[cfg(test)]
mod tests;
