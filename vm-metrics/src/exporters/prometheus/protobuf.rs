//! Families as messages of the protobuf format, which has only doubles.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::created;
use crate::exporters::families::{Family, Sample};
use crate::exporters::metrics::Kind;
use crate::exporters::metrics::labels::Label;

pub(super) fn message(prefix: &str, family: Family) -> MetricFamily {
    let mut message = MetricFamily::default();
    message.set_name(family.full_name(prefix));
    let Family { metric: of, samples, .. } = family;
    message.set_help(of.help.to_owned());
    message.set_field_type(match of.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge | Kind::Amount => MetricType::GAUGE,
    });
    message.set_metric(samples.into_iter().map(|sample| metric(of.kind, of.labels, sample)).collect());
    message
}

fn metric(kind: Kind, labels: &[Label], sample: Sample) -> Metric {
    // To Prometheus an empty label is none.
    let pairs = labels.iter().zip(sample.labels).filter(|(_, value)| !value.is_empty());
    let pairs = pairs.map(|(label, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(label.name.to_owned());
        pair.set_value(value);
        pair
    });
    let mut metric = Metric::from_label(pairs.collect());
    match kind {
        Kind::Counter => {
            let mut counter = Counter::default();
            counter.set_value(sample.value.as_f64());
            if let Some(since) = sample.since {
                created::set(&mut counter, since);
            }
            metric.set_counter(counter);
        }
        Kind::Gauge | Kind::Amount => {
            let mut gauge = Gauge::default();
            gauge.set_value(sample.value.as_f64());
            metric.set_gauge(gauge);
        }
    }
    metric
}
