//! `/metrics`: the snapshot in the text and protobuf formats of Prometheus.
//!
//! The metrics of a snapshot are rendered apart from those that change between two requests. So N scrapers share the bytes
//! of one rendering.
//!
//! A snapshot is too old when ticks hang. It is shown without its VMs, because old numbers must not look current.

mod created;
mod protobuf;
mod text;
mod wire;

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, ProtobufEncoder, TextEncoder};

use super::View;
use super::families::FamilySink;
use crate::manager::Ticker;
use crate::model::{Snapshot, unix_seconds};
use protobuf::ProtobufWriter;
use text::TextWriter;

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
        let mut body = encode(&self.prefix, format, |sink| self.view.write(snapshot, stale, sink));
        let mut of_process = self.process.collect();
        created::set_all(&mut of_process, unix_seconds(snapshot.counting_since));
        format.encode(&of_process, &mut body)?;
        Ok(body)
    }

    /// Renders the metrics that also change between two snapshots. Before the first tick there are none.
    pub fn of_now(&self, format: Format) -> Vec<u8> {
        encode(&self.prefix, format, |sink| {
            if let Some(snapshot) = self.ticker.latest() {
                self.view.write_exports(&snapshot, sink);
            }
        })
    }
}

fn encode(prefix: &str, format: Format, write: impl FnOnce(&mut dyn FamilySink)) -> Vec<u8> {
    match format {
        Format::Text => {
            let mut writer = TextWriter::new(prefix);
            write(&mut writer);
            writer.text
        }
        Format::Protobuf => {
            let mut writer = ProtobufWriter::new(prefix);
            write(&mut writer);
            writer.body
        }
    }
}

/// Renders the metrics of a snapshot, for benches and tests.
pub fn render(prefix: &str, snapshot: &Snapshot, format: Format) -> Vec<u8> {
    encode(prefix, format, |sink| View::default().write(snapshot, false, sink))
}

#[cfg(test)]
mod tests;
