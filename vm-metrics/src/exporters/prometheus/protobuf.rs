//! Writes families in the protobuf format, which has only doubles.

use super::{created, wire};
use crate::exporters::families::FamilySink;
use crate::exporters::metrics::{self, Kind, Metric, Number, Since};

/// Fields of `io.prometheus.client.MetricFamily`.
mod family {
    pub(super) const NAME: u8 = 1;
    pub(super) const HELP: u8 = 2;
    pub(super) const TYPE: u8 = 3;
    pub(super) const METRIC: u8 = 4;
}

/// Fields of its `Metric`.
mod metric {
    pub(super) const LABEL: u8 = 1;
    pub(super) const GAUGE: u8 = 2;
    pub(super) const COUNTER: u8 = 3;
}

/// Fields of its `LabelPair`.
mod label {
    pub(super) const NAME: u8 = 1;
    pub(super) const VALUE: u8 = 2;
}

/// Field of its `Counter` and `Gauge`.
const VALUE: u8 = 1;

#[derive(Debug, Default)]
pub(super) struct ProtobufWriter<'p> {
    prefix: &'p str,
    pub(super) body: Vec<u8>,
    is_counter: bool,
    /// Fields of the family before its metrics.
    head: Vec<u8>,
    metrics: Vec<u8>,
    /// The field with the name of each label.
    labels: Vec<Vec<u8>>,
    /// The message of one metric, and that of its number.
    metric: Vec<u8>,
    number: Vec<u8>,
}

impl<'p> ProtobufWriter<'p> {
    pub(super) fn new(prefix: &'p str) -> Self {
        Self { prefix, ..Self::default() }
    }
}

impl FamilySink for ProtobufWriter<'_> {
    fn begin(&mut self, prefix: Option<&'static str>, metric: &'static Metric) {
        self.is_counter = metric.kind == Kind::Counter;
        self.head.clear();
        let name = metrics::full_name(prefix, self.prefix, metric.name);
        wire::bytes(&mut self.head, family::NAME, name.as_bytes());
        wire::bytes(&mut self.head, family::HELP, metric.help.as_bytes());
        // `COUNTER` is 0, `GAUGE` is 1.
        wire::number(&mut self.head, family::TYPE, u64::from(!self.is_counter));
        let name = |name: &str| {
            let mut field = Vec::new();
            wire::bytes(&mut field, label::NAME, name.as_bytes());
            field
        };
        self.labels = metric.labels.iter().map(|label| name(label.name)).collect();
    }

    fn sample(&mut self, labels: &[&str], value: Number, since: Since) {
        self.metric.clear();
        // To Prometheus an empty label is none.
        for (name, value) in self.labels.iter().zip(labels).filter(|(_, value)| !value.is_empty()) {
            let length = name.len() + 1 + wire::varint_size(value.len() as u64) + value.len();
            wire::begin(&mut self.metric, metric::LABEL, length);
            self.metric.extend_from_slice(name);
            wire::bytes(&mut self.metric, label::VALUE, value.as_bytes());
        }
        self.number.clear();
        wire::double(&mut self.number, VALUE, value.as_f64());
        if let Some(since) = since.filter(|_| self.is_counter) {
            created::write(&mut self.number, since);
        }
        let field = if self.is_counter { metric::COUNTER } else { metric::GAUGE };
        wire::bytes(&mut self.metric, field, &self.number);
        wire::bytes(&mut self.metrics, family::METRIC, &self.metric);
    }

    fn end(&mut self) {
        if !self.metrics.is_empty() {
            wire::varint(&mut self.body, (self.head.len() + self.metrics.len()) as u64);
            self.body.append(&mut self.head);
            self.body.append(&mut self.metrics);
        }
    }
}
