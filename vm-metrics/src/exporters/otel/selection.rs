//! Selects the metrics that a program shows on its meter.

use super::basic;
use crate::exporters::View;
use crate::exporters::families::{self, Family};
use crate::exporters::metrics::EXPORTER_GROUPS;
use crate::model::Snapshot;

/// The instruments of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Instruments {
    /// The nine of Go programs with the package `vm_metrics`. Each VM has its CPU time, memory, allocation, and bytes
    /// received and sent over all interfaces. Two more are of the label budget.
    #[default]
    Basic,
    /// Those of some groups, as `/metrics` shows them: each network interface has a point.
    Groups(Vec<MetricGroup>),
    /// Every metric, as `/metrics` shows them.
    All,
}

/// Metrics of one kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetricGroup {
    /// Of a VM as a whole.
    Vms,
    /// Of each vCPU.
    Vcpus,
    /// Of each network interface.
    Interfaces,
    /// Of the collection itself: its parts, ticks and exporters.
    Exporter,
}

impl MetricGroup {
    fn of(family: &Family) -> Self {
        let is_of_exports = EXPORTER_GROUPS
            .iter()
            .any(|group| group.metrics().any(|metric| metric.name == family.metric.name));
        match family.metric {
            _ if family.prefix.is_some() || is_of_exports => Self::Exporter,
            metric if metric.has_label("device") => Self::Interfaces,
            metric if metric.has_label("vcpu") => Self::Vcpus,
            _ => Self::Vms,
        }
    }
}

impl Instruments {
    /// The families that [`look`](Self::look) gives, without samples.
    pub(super) fn names(&self) -> Vec<Family> {
        match self {
            Self::Basic => basic::names(),
            Self::Groups(_) | Self::All => families::names(),
        }
    }

    /// Whether an instrument shows this family.
    pub(super) fn contains(&self, family: &Family) -> bool {
        match self {
            Self::Groups(groups) => groups.contains(&MetricGroup::of(family)),
            Self::Basic | Self::All => true,
        }
    }

    pub(super) fn look(&self, view: &View, snapshot: &Snapshot) -> Vec<Family> {
        match self {
            Self::Basic => basic::look(view, snapshot),
            Self::Groups(_) | Self::All => view.look(snapshot, false),
        }
    }
}
