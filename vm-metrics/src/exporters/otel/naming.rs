//! Names, kinds, units and attributes of the instruments.

use opentelemetry::{Key, KeyValue};
use serde::Deserialize;

use super::instrument::{Attribute, Instrument, Series};
use crate::exporters::families::Family;
use crate::exporters::metrics::labels::LabelValue;
use crate::exporters::metrics::{InstrumentKind, Kind};

/// First part of the names of the daemon's own instruments.
const OWN: &str = "vm.exporter";

/// Names, kinds and attributes of the instruments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Naming {
    /// The names and labels of `/metrics`: `vm_cpu_seconds_total`.
    #[default]
    Prometheus,
    /// Those of the semantic conventions of OpenTelemetry: `vm.cpu.time`.
    Otel,
}

impl Naming {
    /// Instruments that show these families.
    pub(super) fn instruments<'f>(
        self,
        prefix: &str,
        families: impl IntoIterator<Item = (usize, &'f Family)>,
    ) -> Vec<Instrument> {
        match self {
            Self::Prometheus => {
                families.into_iter().map(|(index, family)| as_prometheus(prefix, index, family)).collect()
            }
            Self::Otel => by_conventions(prefix, families),
        }
    }
}

/// Named as `/metrics` names the metric.
fn as_prometheus(prefix: &str, index: usize, family: &Family) -> Instrument {
    let metric = family.metric;
    let labels = metric.labels.iter();
    let attributes = labels
        .map(|label| Attribute { key: Key::from_static_str(label.name), value: LabelValue::Text })
        .collect();
    Instrument {
        name: family.full_name(prefix),
        unit: metric.unit,
        help: metric.help,
        kind: match metric.kind {
            Kind::Counter => InstrumentKind::Counter,
            Kind::Gauge | Kind::Amount => InstrumentKind::Gauge,
        },
        is_whole: metric.samples.are_whole(),
        series: vec![Series { family: index, attributes, fixed: None }],
    }
}

/// Families of one instrument are shown together.
fn by_conventions<'f>(
    prefix: &str,
    families: impl IntoIterator<Item = (usize, &'f Family)>,
) -> Vec<Instrument> {
    let mut instruments: Vec<Instrument> = Vec::new();
    for (index, family) in families {
        let instrument = by_convention(prefix, index, family);
        match instruments.iter_mut().find(|other| other.name == instrument.name) {
            Some(other) => other.series.extend(instrument.series),
            None => instruments.push(instrument),
        }
    }
    instruments
}

fn by_convention(prefix: &str, index: usize, family: &Family) -> Instrument {
    let (metric, otel) = (family.metric, family.metric.otel);
    let is_own = family.prefix.is_some() || metric.name.starts_with("metrics_");
    let labels = metric.labels.iter();
    let attributes = labels
        .map(|label| Attribute { key: Key::from_static_str(label.attribute), value: label.value })
        .collect();
    let fixed = otel.attribute.map(|(key, value)| KeyValue::new(key, value));
    Instrument {
        name: format!("{}.{}", if is_own { OWN } else { prefix }, otel.name),
        unit: otel.unit.unwrap_or(metric.unit),
        help: otel.help.unwrap_or(metric.help),
        kind: otel.instrument.unwrap_or(match metric.kind {
            Kind::Counter => InstrumentKind::Counter,
            Kind::Amount => InstrumentKind::UpDownCounter,
            Kind::Gauge => InstrumentKind::Gauge,
        }),
        is_whole: metric.samples.are_whole(),
        series: vec![Series { family: index, attributes, fixed }],
    }
}
