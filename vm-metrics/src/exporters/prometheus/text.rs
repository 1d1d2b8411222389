//! Writes families in the text format, whole numbers exactly.
//!
//! The crate's encoder has only doubles, and takes several times as long: `cargo bench -p vm-metrics --bench render`.

use std::io::Write;

use crate::exporters::families::FamilySink;
use crate::exporters::metrics::{self, Kind, Metric, Number, Since};

#[derive(Debug, Default)]
pub(super) struct TextWriter<'p> {
    prefix: &'p str,
    pub(super) text: Vec<u8>,
    name: String,
    /// Lines before the first sample; empty behind it.
    head: Vec<u8>,
    /// For each label of the metric `,name="`.
    labels: Vec<String>,
}

impl<'p> TextWriter<'p> {
    pub(super) fn new(prefix: &'p str) -> Self {
        Self { prefix, ..Self::default() }
    }

    fn number(&mut self, number: Number) {
        let mut buffer = itoa::Buffer::new();
        match number {
            Number::Count(number) => self.text.extend(buffer.format(number).bytes()),
            Number::Difference(number) => self.text.extend(buffer.format(number).bytes()),
            // A vector takes all.
            Number::Real(number) => drop(write!(self.text, "{number}")),
        }
    }
}

impl FamilySink for TextWriter<'_> {
    fn begin(&mut self, prefix: Option<&'static str>, metric: &'static Metric) {
        self.name = metrics::full_name(prefix, self.prefix, metric.name);
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge | Kind::Amount => "gauge",
        };
        let (name, help) = (&self.name, metric.help);
        self.head = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n").into_bytes();
        self.labels = metric.labels.iter().map(|label| format!(",{}=\"", label.name)).collect();
    }

    fn sample(&mut self, labels: &[&str], value: Number, _: Since) {
        self.text.append(&mut self.head);
        self.text.extend_from_slice(self.name.as_bytes());
        let begin = self.text.len();
        // To Prometheus an empty label is none.
        for (before, value) in self.labels.iter().zip(labels).filter(|(_, value)| !value.is_empty()) {
            self.text.extend_from_slice(before.as_bytes());
            escape(value, &mut self.text);
            self.text.push(b'"');
        }
        if self.text.len() > begin {
            self.text[begin] = b'{';
            self.text.push(b'}');
        }
        self.text.push(b' ');
        self.number(value);
        self.text.push(b'\n');
    }

    fn end(&mut self) {}
}

fn escape(label: &str, text: &mut Vec<u8>) {
    let is_special = |byte: u8| matches!(byte, b'\\' | b'"' | b'\n');
    // Without an early end the compiler compares many bytes at once.
    if !label.bytes().fold(false, |any, byte| any | is_special(byte)) {
        return text.extend_from_slice(label.as_bytes());
    }
    for byte in label.bytes() {
        if is_special(byte) {
            text.push(b'\\');
        }
        text.push(if byte == b'\n' { b'n' } else { byte });
    }
}
