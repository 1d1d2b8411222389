//! Names, kinds and units by the semantic conventions of OpenTelemetry, for every metric.
//!
//! The conventions have no VMs yet, and keep `system.*` for what runs inside of one. So a name is that of a system, process or
//! container with `vm` in front: `vm.cpu.time`. A new metric is one line in `vm` or `exporter`.

mod exporter;
mod labels;
mod vm;

use opentelemetry::KeyValue;

use super::instrument::{Attribute, Instrument, Kind, Series};
use crate::exporters::families::Family;

/// First part of the names of what the daemon says of itself.
const OWN: &str = "vm.exporter";

/// An instrument of the conventions.
struct Convention {
    /// Follows the prefix and a dot.
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    metrics: Metrics,
}

/// What an instrument shows, by the names that `/metrics` has.
enum Metrics {
    /// One metric, whose help is the description.
    One(&'static str),
    /// A description, and metrics that differ by an attribute.
    Several(&'static str, &'static [(&'static str, Fixed)]),
}

/// The name and value of an attribute.
type Fixed = (&'static str, &'static str);

const fn counter(name: &'static str, unit: &'static str, metrics: Metrics) -> Convention {
    Convention { name, kind: Kind::Counter, unit, metrics }
}

/// For numbers that can be added up over VMs.
const fn up_down(name: &'static str, unit: &'static str, metrics: Metrics) -> Convention {
    Convention { name, kind: Kind::UpDownCounter, unit, metrics }
}

const fn gauge(name: &'static str, unit: &'static str, metrics: Metrics) -> Convention {
    Convention { name, kind: Kind::Gauge, unit, metrics }
}

fn all() -> impl Iterator<Item = &'static Convention> {
    [vm::OF_VM, vm::OF_NETWORK, exporter::OWN_METRICS].into_iter().flatten()
}

impl Convention {
    /// Each metric, and the attribute by which it differs from the others.
    fn parts(&self) -> Vec<(&'static str, Option<Fixed>)> {
        match self.metrics {
            Metrics::One(metric) => vec![(metric, None)],
            Metrics::Several(_, parts) => {
                parts.iter().map(|(metric, fixed)| (*metric, Some(*fixed))).collect()
            }
        }
    }

    /// `None` when none of its metrics is among the families.
    fn instrument(&self, prefix: &str, families: &[(usize, &Family)]) -> Option<Instrument> {
        let parts = self.parts();
        let of_part = |(metric, fixed): &(&str, Option<Fixed>)| {
            let (index, family) = families.iter().find(|(_, family)| family.name == *metric)?;
            Some((series(*index, family, *fixed), *family))
        };
        let (series, shown): (Vec<Series>, Vec<&Family>) = parts.iter().filter_map(of_part).unzip();
        let first = shown.first()?;
        let is_own = first.prefix.is_some() || first.name.starts_with("metrics_");
        Some(Instrument {
            name: format!("{}.{}", if is_own { OWN } else { prefix }, self.name),
            unit: self.unit,
            help: match self.metrics {
                Metrics::One(_) => first.help,
                Metrics::Several(help, _) => help,
            },
            kind: self.kind,
            is_whole: self.unit != "s",
            series,
        })
    }
}

fn series(index: usize, family: &Family, fixed: Option<Fixed>) -> Series {
    let attribute = |label: &&'static str| labels::attribute(family.name, label);
    let attributes: Vec<Attribute> = family.labels.iter().map(attribute).collect();
    let fixed = fixed.map(|(key, value)| KeyValue::new(key, value));
    Series { family: index, attributes, fixed }
}

/// The instruments for these families.
pub(super) fn instruments<'f>(
    prefix: &str,
    families: impl IntoIterator<Item = (usize, &'f Family)>,
) -> Vec<Instrument> {
    let families: Vec<(usize, &Family)> = families.into_iter().collect();
    all().filter_map(|convention| convention.instrument(prefix, &families)).collect()
}

#[cfg(test)]
mod tests;
