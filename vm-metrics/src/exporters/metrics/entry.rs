//! The entry of a metric: all that is true of it, whatever the format.

use super::kind::Kind;
use super::labels::Label;
use super::number::{Number, Since};
use super::series_group::SeriesGroup;
use super::snapshot_view::SnapshotView;

#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Follows the prefix and `_`.
    pub name: &'static str,
    pub group: SeriesGroup,
    pub kind: Kind,
    /// In the code of UCUM; annotations in braces, as the conventions of OpenTelemetry have it. Empty without a unit: a store
    /// with Prometheus naming would put `_ratio` behind a gauge of unit `1`.
    pub unit: &'static str,
    /// One sentence: the thing that is measured, from whose view, in which unit.
    pub help: &'static str,
    /// Where the number comes from.
    #[cfg_attr(not(test), expect(dead_code, reason = "the documentation has it"))]
    pub origin: &'static str,
    pub labels: &'static [Label],
    pub otel: Convention,
    pub samples: Samples,
}

/// Computes every sample of a metric. The variant is the type of its numbers.
#[derive(Clone, Copy, Debug)]
pub enum Samples {
    Count(fn(&SnapshotView<'_>, Sink<'_, u64>)),
    /// A count less another, which may be below 0.
    Difference(fn(&SnapshotView<'_>, Sink<'_, i64>)),
    Real(fn(&SnapshotView<'_>, Sink<'_, f64>)),
}

/// Takes one sample: the values of the labels, in their order, the number, and since when it counts.
pub type Sink<'s, N> = &'s mut dyn FnMut(&[&str], N, Since);

impl Samples {
    pub fn compute(self, view: &SnapshotView<'_>, sink: Sink<'_, Number>) {
        match self {
            Self::Count(samples) => {
                samples(view, &mut |labels, n, since| sink(labels, Number::Count(n), since))
            }
            Self::Difference(samples) => {
                samples(view, &mut |labels, n, since| sink(labels, Number::Difference(n), since));
            }
            Self::Real(samples) => {
                samples(view, &mut |labels, n, since| sink(labels, Number::Real(n), since))
            }
        }
    }

    pub fn are_whole(self) -> bool {
        !matches!(self, Self::Real(_))
    }
}

/// A counter of the base group.
pub const fn counter(
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    origin: &'static str,
    labels: &'static [Label],
    otel: Convention,
    samples: Samples,
) -> Metric {
    Metric { name, group: SeriesGroup::Base, kind: Kind::Counter, unit, help, origin, labels, otel, samples }
}

impl Metric {
    /// The same metric in a group.
    pub const fn of(self, group: SeriesGroup) -> Self {
        Self { group, ..self }
    }

    pub fn has_label(&self, name: &str) -> bool {
        self.labels.iter().any(|label| label.name == name)
    }
}

/// The instrument that shows a metric, by the semantic conventions of OpenTelemetry.
///
/// The conventions have no VMs yet, and keep `system.*` for what runs inside of one. So a name is that of a system, process
/// or container with `vm` in front: `vm.cpu.time`.
#[derive(Clone, Copy, Debug)]
pub struct Convention {
    /// Follows the prefix and a dot.
    pub name: &'static str,
    /// Where it does not follow from the kind of the metric.
    pub instrument: Option<InstrumentKind>,
    /// Where it is another than the metric's.
    pub unit: Option<&'static str>,
    /// For an instrument that shows several metrics.
    pub help: Option<&'static str>,
    /// Name and value of the attribute by which these metrics differ.
    pub attribute: Option<Attribute>,
}

pub type Attribute = (&'static str, &'static str);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstrumentKind {
    Counter,
    UpDownCounter,
    Gauge,
}

/// An instrument of one metric.
pub const fn otel(name: &'static str) -> Convention {
    Convention { name, instrument: None, unit: None, help: None, attribute: None }
}

/// An instrument of several metrics; each adds its attribute.
pub const fn shared(name: &'static str, help: &'static str) -> Convention {
    Convention { help: Some(help), ..otel(name) }
}

impl Convention {
    pub const fn instrument(self, kind: InstrumentKind) -> Self {
        Self { instrument: Some(kind), ..self }
    }

    pub const fn unit(self, unit: &'static str) -> Self {
        Self { unit: Some(unit), ..self }
    }

    pub const fn with(self, attribute: Attribute) -> Self {
        Self { attribute: Some(attribute), ..self }
    }
}
