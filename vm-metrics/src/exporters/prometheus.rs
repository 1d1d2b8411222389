//! `/metrics`: the snapshot in the text and protobuf formats of Prometheus.
//!
//! The metrics of a snapshot are rendered apart from those that change between two requests. So N scrapers share the bytes
//! of one rendering.
//!
//! A snapshot is too old when ticks hang. It is shown without its VMs, because old numbers must not look current.

mod created;
mod protobuf;
mod text;

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, ProtobufEncoder, TextEncoder};

use super::View;
use super::families::Family;
use crate::manager::Ticker;
use crate::model::{Snapshot, unix_seconds};

/// The formats that scrapers can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text format 0.0.4.
    Text,
    /// Length-delimited `io.prometheus.client.MetricFamily`.
    Protobuf,
}

impl Format {
    pub const ALL: [Self; 2] = [Self::Text, Self::Protobuf];

    /// Chooses by the header `Accept`: text, unless protobuf comes before any text.
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

    /// Encodes messages of the crate.
    fn encode(self, families: &[MetricFamily], body: &mut Vec<u8>) -> prometheus::Result<()> {
        match self {
            Self::Text => TextEncoder::new().encode(families, body),
            Self::Protobuf => ProtobufEncoder::new().encode(families, body),
        }
    }
}

/// Renders snapshots for `/metrics`.
#[derive(Debug)]
pub struct PrometheusExporter {
    prefix: String,
    view: View,
    ticker: Ticker,
    process: ProcessCollector,
}

impl PrometheusExporter {
    pub fn new(prefix: &str, view: View, ticker: Ticker) -> Self {
        let process = ProcessCollector::for_self();
        Self { prefix: prefix.to_owned(), view, ticker, process }
    }

    /// The snapshot to show, and whether it is too old; `None` before the first tick has ended.
    pub fn latest(&self) -> Option<(Arc<Snapshot>, bool)> {
        let snapshot = self.ticker.latest()?;
        let stale = self.ticker.is_stale(&snapshot);
        Some((snapshot, stale))
    }

    /// Renders the metrics that stay the same until the next snapshot.
    pub fn of_snapshot(
        &self,
        snapshot: &Snapshot,
        stale: bool,
        format: Format,
    ) -> prometheus::Result<Vec<u8>> {
        let mut body = self.encode(self.view.of_snapshot(snapshot, stale), format)?;
        let mut of_process = self.process.collect();
        created::set_all(&mut of_process, unix_seconds(snapshot.counting_since));
        format.encode(&of_process, &mut body)?;
        Ok(body)
    }

    /// Renders the metrics that also change between two snapshots. Before the first tick there are none.
    pub fn of_now(&self, format: Format) -> prometheus::Result<Vec<u8>> {
        let snapshot = self.ticker.latest();
        let families = snapshot.map(|snapshot| self.view.of_exports(&snapshot)).unwrap_or_default();
        self.encode(families, format)
    }

    fn encode(&self, families: Vec<Family>, format: Format) -> prometheus::Result<Vec<u8>> {
        let measured = families.into_iter().filter(|family| !family.samples.is_empty());
        match format {
            Format::Text => {
                let mut text = String::new();
                for family in measured {
                    text::write(&self.prefix, &family, &mut text).map_err(std::io::Error::other)?;
                }
                Ok(text.into_bytes())
            }
            Format::Protobuf => {
                let mut body = Vec::new();
                // One message at a time: messages take many times the memory of their bytes.
                for family in measured {
                    format.encode(&[protobuf::message(&self.prefix, family)], &mut body)?;
                }
                Ok(body)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::exporters::metrics::tests::full;

    #[test]
    fn an_old_snapshot_is_shown_without_vms() {
        let scrape = |age| {
            let mut snapshot = full();
            snapshot.taken = Instant::now().checked_sub(Duration::from_secs(age)).unwrap();
            let exporter = PrometheusExporter::new("vm", View::default(), Ticker::showing(Some(snapshot)).1);
            let (snapshot, stale) = exporter.latest().unwrap();
            let mut body = exporter.of_snapshot(&snapshot, stale, Format::Text).unwrap();
            body.extend(exporter.of_now(Format::Text).unwrap());
            String::from_utf8(body).unwrap()
        };
        let of_vms =
            |text: &str| text.lines().any(|l| l.starts_with("vm_") && !l.starts_with("vm_exporter_"));
        let (young, old) = (scrape(1), scrape(31));
        assert!(of_vms(&young) && !of_vms(&old), "{old}");
        assert!(!old.contains("instance_id="), "{old}");
        for text in [young, old] {
            assert!(text.contains("\nvm_exporter_snapshot_timestamp_seconds 1"), "{text}");
            assert!(text.contains("\nvm_exporter_ticks_total 1\n"), "{text}");
        }
    }

    #[test]
    fn the_first_known_format_wins() {
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
