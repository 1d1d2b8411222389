//! The configuration of the push: `[exporters.otlp]`, and variables of OpenTelemetry that override it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::environment::{Environment, Variable, VariableReader};
use super::tls::TlsFiles;
use crate::config::{ConfigError, Section, Settings, Switch, parse_duration_within};
use crate::exporters::budget::{Budget, OverBudget};
use crate::exporters::metrics::SeriesGroup;
use crate::exporters::otel::Naming;
use crate::manager::DEFAULT_LABEL_BUDGET;

/// Each push is read and written whole. More often than ticks it is of no use.
const INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// A shorter one would let no push through, and a longer one would wait for a collector that is gone.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// The checked configuration of the push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OtlpConfig {
    pub(super) protocol: Protocol,
    /// As it is connected to; of HTTP the whole URL.
    pub(super) endpoint: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) tls: TlsFiles,
    pub(super) gzip: bool,
    pub(super) interval: Duration,
    /// For a request with its retries.
    pub(super) timeout: Duration,
    /// For a push with all its requests.
    pub(super) timeout_of_all: Duration,
    /// Configured attributes; those of the host are added later.
    pub(super) resource: BTreeMap<String, String>,
    budget: Budget,
    pub(in crate::exporters) groups: Vec<SeriesGroup>,
    pub(super) prefix: String,
    pub(super) naming: Naming,
    /// Port of `/metrics`, by which this daemon differs from others of its host.
    pub(super) port: u16,
}

impl OtlpConfig {
    pub(crate) fn budget(&self) -> Budget {
        self.budget
    }

    /// The endpoint for logs: without user, password and query, which may be secrets.
    pub(super) fn shown_endpoint(&self) -> String {
        let bare = self.endpoint.split(['?', '#']).next().unwrap_or_default();
        let Some((scheme, rest)) = bare.split_once("://") else { return bare.to_owned() };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or(authority);
        format!("{scheme}://{host}{path}")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    HttpProtobuf,
}

/// The keys of the section, as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct OtlpKeys {
    endpoint: Option<String>,
    protocol: String,
    compression: String,
    headers: BTreeMap<String, String>,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    interval: String,
    timeout: String,
    resource: BTreeMap<String, String>,
    naming: Naming,
    label_budget: usize,
    over_budget: OverBudget,
    groups: Vec<SeriesGroup>,
}

impl Default for OtlpKeys {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: "http/protobuf".to_owned(),
            compression: "none".to_owned(),
            headers: BTreeMap::new(),
            ca_file: None,
            cert_file: None,
            key_file: None,
            interval: "1m".to_owned(),
            timeout: "10s".to_owned(),
            resource: BTreeMap::new(),
            naming: Naming::default(),
            label_budget: DEFAULT_LABEL_BUDGET,
            over_budget: OverBudget::default(),
            groups: Vec::new(),
        }
    }
}

/// `None` when there is nothing to push. A section that is switched off is checked all the same.
pub(crate) fn configure(
    section: &Section,
    settings: &Settings,
    read: VariableReader<'_>,
) -> Result<Option<OtlpConfig>, ConfigError> {
    let environment = Environment(read);
    let keys: OtlpKeys = section.options()?;
    let is_on = match section.switch()? {
        Switch::Off => false,
        Switch::On => true,
        Switch::Auto => environment.otlp("ENDPOINT").is_some(),
    };
    // Wrong variables are no error while the push is off.
    let nothing: VariableReader<'_> = &|_| None;
    let is_on = is_on && !environment.forbids();
    let environment = if is_on { environment } else { Environment(nothing) };
    let push = ConfigReader { section, environment }.push(keys, settings)?;
    Ok(is_on.then_some(push))
}

struct ConfigReader<'a> {
    section: &'a Section,
    environment: Environment<'a>,
}

impl ConfigReader<'_> {
    fn push(&self, keys: OtlpKeys, settings: &Settings) -> Result<OtlpConfig, ConfigError> {
        self.warn_of_delta_temporality();
        let protocol = self.protocol(&keys.protocol)?;
        let endpoint = self.endpoint(keys.endpoint.as_deref(), protocol)?;
        let tls = self.tls(&keys)?;
        let variable = self.environment.get("OTEL_METRIC_EXPORT_INTERVAL");
        let interval = self.duration("interval", &keys.interval, &INTERVALS, variable)?;
        let variable = self.environment.otlp("TIMEOUT");
        let timeout = self.duration("timeout", &keys.timeout, &TIMEOUTS, variable)?;
        let variable = self.environment.get("OTEL_METRIC_EXPORT_TIMEOUT");
        let of_all = variable.map(|variable| variable.milliseconds(&TIMEOUTS));
        let timeout_of_all = of_all.transpose()?.unwrap_or(timeout);
        let gzip = self.gzip(&keys.compression)?;
        let mut headers = keys.headers;
        if let Some(variable) = self.environment.otlp("HEADERS") {
            headers.extend(variable.pairs()?);
        }
        self.check_headers(&headers)?;
        let mut resource = keys.resource;
        resource.extend(self.environment.resource()?);
        let (prefix, port) = (settings.metric_prefix.clone(), settings.listen.port());
        Ok(OtlpConfig {
            protocol,
            endpoint,
            headers,
            tls,
            gzip,
            interval,
            timeout,
            timeout_of_all,
            resource,
            budget: Budget::new(keys.label_budget, keys.over_budget),
            groups: keys.groups,
            prefix,
            naming: keys.naming,
            port,
        })
    }

    fn protocol(&self, key: &str) -> Result<Protocol, ConfigError> {
        let parse = |text: &str| match text {
            "grpc" => Ok(Protocol::Grpc),
            "http/protobuf" => Ok(Protocol::HttpProtobuf),
            _ => Err("must be \"grpc\" or \"http/protobuf\"".to_owned()),
        };
        let of_key = parse(key).map_err(|problem| self.section.refusal("protocol", &problem))?;
        match self.environment.otlp("PROTOCOL") {
            Some(variable) => parse(&variable.value).map_err(|problem| variable.refusal(problem)),
            None => Ok(of_key),
        }
    }

    fn gzip(&self, key: &str) -> Result<bool, ConfigError> {
        let parse = |text: &str| match text {
            "none" => Ok(false),
            "gzip" => Ok(true),
            _ => Err("must be \"none\" or \"gzip\"".to_owned()),
        };
        let of_key = parse(key).map_err(|problem| self.section.refusal("compression", &problem))?;
        match self.environment.otlp("COMPRESSION") {
            Some(variable) => parse(&variable.value).map_err(|problem| variable.refusal(problem)),
            None => Ok(of_key),
        }
    }

    /// The path of the signal goes behind what is for all signals, as the specification has it.
    fn endpoint(&self, key: Option<&str>, protocol: Protocol) -> Result<String, ConfigError> {
        let key = key.unwrap_or(match protocol {
            Protocol::Grpc => "http://localhost:4317",
            Protocol::HttpProtobuf => "http://localhost:4318",
        });
        let of_key = checked(key, protocol).map_err(|problem| self.section.refusal("endpoint", &problem))?;
        let with_scheme = |variable: &Variable| match (protocol, variable.value.contains("://")) {
            (Protocol::Grpc, false) if self.is_insecure() => format!("http://{}", variable.value),
            (Protocol::Grpc, false) => format!("https://{}", variable.value),
            _ => variable.value.clone(),
        };
        let check = |variable: &Variable| {
            checked(&with_scheme(variable), protocol).map_err(|problem| variable.refusal(problem))
        };
        if let Some(variable) = self.environment.of_metrics("ENDPOINT") {
            return check(&variable).map(|_| with_scheme(&variable));
        }
        match self.environment.of_all_signals("ENDPOINT") {
            Some(variable) => check(&variable),
            None => Ok(of_key),
        }
    }

    fn is_insecure(&self) -> bool {
        self.environment.otlp("INSECURE").is_some_and(|variable| variable.value.eq_ignore_ascii_case("true"))
    }

    fn tls(&self, keys: &OtlpKeys) -> Result<TlsFiles, ConfigError> {
        let file = |key: &Option<PathBuf>, name| {
            self.environment.otlp(name).map(|variable| PathBuf::from(variable.value)).or_else(|| key.clone())
        };
        let cert = file(&keys.cert_file, "CLIENT_CERTIFICATE");
        let key = file(&keys.key_file, "CLIENT_KEY");
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return Err(self.section.refusal("cert_file", "key_file is missing")),
            (None, Some(_)) => return Err(self.section.refusal("key_file", "cert_file is missing")),
        };
        Ok(TlsFiles { ca: file(&keys.ca_file, "CERTIFICATE"), identity })
    }

    fn duration(
        &self,
        name: &str,
        key: &str,
        bounds: &RangeInclusive<Duration>,
        variable: Option<Variable>,
    ) -> Result<Duration, ConfigError> {
        let of_key = parse_duration_within(key, bounds.clone())
            .map_err(|problem| self.section.refusal(name, &problem))?;
        variable.map_or(Ok(of_key), |variable| variable.milliseconds(bounds))
    }

    fn check_headers(&self, headers: &BTreeMap<String, String>) -> Result<(), ConfigError> {
        let is_header = |(name, value): (&String, &String)| {
            axum::http::HeaderName::try_from(name).is_ok() && axum::http::HeaderValue::try_from(value).is_ok()
        };
        match headers.iter().find(|header| !is_header(*header)) {
            None => Ok(()),
            // Not the value: it may be a secret.
            Some((name, _)) => Err(self.section.refusal("headers", &format!("{name:?} cannot be a header"))),
        }
    }

    fn warn_of_delta_temporality(&self) {
        let temporality = self.environment.of_metrics("TEMPORALITY_PREFERENCE");
        if temporality.is_some_and(|variable| variable.value.eq_ignore_ascii_case("delta")) {
            // The first difference of a VM would be all that it has counted, once more with each start of the daemon.
            tracing::warn!(
                "otlp: delta temporality is ignored: VMs live longer than the daemon, so it is cumulative"
            );
        }
    }
}

/// The address to send to.
fn checked(endpoint: &str, protocol: Protocol) -> Result<String, String> {
    const PATH: &str = "/v1/metrics";
    let is_http = ["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme));
    let uri = endpoint.parse::<axum::http::Uri>().ok().filter(|uri| is_http && uri.host().is_some());
    if uri.is_none() {
        // Not the value: a password may be in it.
        return Err("must be an address such as \"http://collector:4318\"".to_owned());
    }
    let bare = endpoint.trim_end_matches('/');
    Ok(match protocol {
        Protocol::HttpProtobuf if !bare.ends_with(PATH) => format!("{bare}{PATH}"),
        _ => endpoint.to_owned(),
    })
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
