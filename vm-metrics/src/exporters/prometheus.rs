//! `/metrics`: the snapshot in the formats of Prometheus, through its own crate.
//!
//! A snapshot is rendered once per format, by the first who asks; later scrapes of it get the same bytes. So a scrape makes
//! no system call for any VM, and N scrapers cost as much as one.
//!
//! A snapshot that is too old, because ticks hang, is shown without its VMs: old numbers must not look like those of now.

use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, ProtobufEncoder, TextEncoder};

use super::View;
use super::families::{self, Family, Sample};
use super::metrics::Kind;
use crate::manager::Ticker;
use crate::model::Snapshot;

/// The formats that Prometheus asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text format 0.0.4.
    Text,
    /// Length-delimited `io.prometheus.client.MetricFamily`.
    Protobuf,
}

impl Format {
    /// What the header `Accept` asks for; text unless protobuf is named before any text.
    pub fn negotiate(accept: &str) -> Self {
        let wanted = accept.split(',').map(str::trim).find_map(|range| {
            if range.starts_with("application/vnd.google.protobuf") {
                let family = !range.contains("proto=") || range.contains("io.prometheus.client.MetricFamily");
                let delimited = !range.contains("encoding=") || range.contains("encoding=delimited");
                (family && delimited).then_some(Self::Protobuf)
            } else {
                (range.starts_with("text/") || range.starts_with("*/*")).then_some(Self::Text)
            }
        });
        wanted.unwrap_or(Self::Text)
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus::TEXT_FORMAT,
            Self::Protobuf => prometheus::PROTOBUF_FORMAT,
        }
    }

    fn encode(self, families: &[MetricFamily]) -> prometheus::Result<Vec<u8>> {
        let mut body = Vec::new();
        match self {
            Self::Text => TextEncoder::new().encode(families, &mut body)?,
            Self::Protobuf => ProtobufEncoder::new().encode(families, &mut body)?,
        }
        Ok(body)
    }
}

/// Renders snapshots.
#[derive(Debug)]
pub struct PrometheusExporter {
    prefix: String,
    view: View,
    ticker: Ticker,
    process: ProcessCollector,
    rendered: Mutex<[Option<Rendered>; 2]>,
}

/// What does not change between two looks at one snapshot.
#[derive(Debug)]
struct Rendered {
    tick: u64,
    stale: bool,
    body: Bytes,
}

impl PrometheusExporter {
    pub fn new(prefix: &str, view: View, ticker: Ticker) -> Self {
        let process = ProcessCollector::for_self();
        Self { prefix: prefix.to_owned(), view, ticker, process, rendered: Mutex::default() }
    }

    /// The body of `/metrics`; `None` before the first tick has ended.
    pub fn scrape(&self, format: Format) -> prometheus::Result<Option<Bytes>> {
        let Some(snapshot) = self.ticker.latest() else { return Ok(None) };
        let stale = self.ticker.is_stale(&snapshot);
        let still = self.still(&snapshot, stale, format)?;
        let mut live = families::of_snapshot(&snapshot, |group| group.live);
        live.extend(self.view.of_exports());
        let live = format.encode(&self.encodable(live))?;
        let mut body = BytesMut::with_capacity(still.len() + live.len());
        body.extend_from_slice(&still);
        body.extend_from_slice(&live);
        Ok(Some(body.freeze()))
    }

    fn still(&self, snapshot: &Snapshot, stale: bool, format: Format) -> prometheus::Result<Bytes> {
        // A panic while rendering leaves the old bytes, which are whole.
        let mut rendered = self.rendered.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = &mut rendered[format as usize];
        if let Some(rendered) = slot
            && (rendered.tick, rendered.stale) == (snapshot.tick, stale)
        {
            return Ok(rendered.body.clone());
        }
        let families = self.view.of_snapshot(snapshot, stale, |group| !group.live);
        let mut families = self.encodable(families);
        families.extend(self.process.collect());
        let body = Bytes::from(format.encode(&families)?);
        *slot = Some(Rendered { tick: snapshot.tick, stale, body: body.clone() });
        Ok(body)
    }

    fn encodable(&self, families: Vec<Family>) -> Vec<MetricFamily> {
        let measured = families.into_iter().filter(|family| !family.samples.is_empty());
        measured.map(|family| encodable(&self.prefix, family)).collect()
    }
}

fn encodable(prefix: &str, family: Family) -> MetricFamily {
    let mut encodable = MetricFamily::default();
    encodable.set_name(family.full_name(prefix));
    encodable.set_help(family.help.to_owned());
    encodable.set_field_type(match family.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
    });
    let (kind, labels) = (family.kind, family.labels);
    let samples = family.samples.into_iter().map(|sample| metric(kind, labels, sample));
    encodable.set_metric(samples.collect());
    encodable
}

fn metric(kind: Kind, labels: &[&str], sample: Sample) -> Metric {
    // To Prometheus an empty label is none.
    let pairs =
        labels.iter().zip(sample.labels).filter(|(_, value)| !value.is_empty()).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value);
            pair
        });
    let mut metric = Metric::from_label(pairs.collect());
    match kind {
        Kind::Counter => {
            let mut counter = Counter::default();
            counter.set_value(sample.value);
            metric.set_counter(counter);
        }
        Kind::Gauge => {
            let mut gauge = Gauge::default();
            gauge.set_value(sample.value);
            metric.set_gauge(gauge);
        }
    }
    metric
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::exporters::metrics::tests::full;

    #[test]
    fn a_snapshot_that_is_too_old_is_shown_without_its_vms() {
        let scrape = |age| {
            let mut snapshot = full();
            snapshot.taken = Instant::now().checked_sub(Duration::from_secs(age)).unwrap();
            let exporter = PrometheusExporter::new("vm", View::default(), Ticker::showing(Some(snapshot)).1);
            String::from_utf8(exporter.scrape(Format::Text).unwrap().unwrap().to_vec()).unwrap()
        };
        let of_vms = |text: &str| text.lines().any(|l| l.starts_with("vm_") && !l.starts_with("vm_metrics_"));
        let (young, old) = (scrape(1), scrape(31));
        assert!(of_vms(&young) && !of_vms(&old), "{old}");
        assert!(!old.contains("instance_id="), "{old}");
        for text in [young, old] {
            assert!(
                text.contains("\nvm_metrics_snapshot_age_seconds 1") || text.contains("_seconds 31"),
                "{text}"
            );
            assert!(text.contains("\nvm_metrics_ticks_total 1\n"), "{text}");
        }
    }

    #[test]
    fn the_format_is_the_first_that_is_known() {
        let protobuf =
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        let by_prometheus =
            format!("{protobuf};q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1");
        assert_eq!(Format::negotiate(&by_prometheus), Format::Protobuf);
        for accept in ["", "*/*", "text/plain", "application/openmetrics-text;version=1.0.0,text/plain;q=0.4"]
        {
            assert_eq!(Format::negotiate(accept), Format::Text, "{accept:?}");
        }
        assert_eq!(Format::negotiate(&format!("text/plain,{protobuf};q=0.1")), Format::Text);
        assert_eq!(
            Format::negotiate("application/vnd.google.protobuf;proto=x;encoding=delimited"),
            Format::Text
        );
    }
}
