//! The metrics of a snapshot that one exporter shows.
//!
//! They stay within its label budget. A snapshot that is too old is shown without its VMs.

use std::sync::{Mutex, PoisonError};

use super::budget::LabelBudget;
use super::exporter_stats::ExporterStats;
use super::families::{self, Family};
use super::metrics::Group;
use super::metrics::labels::ID;
use crate::model::Snapshot;

/// One exporter's view of the snapshots.
#[derive(Debug, Default)]
pub struct View {
    stats: ExporterStats,
    budget: Option<Mutex<LabelBudget>>,
}

impl View {
    pub(super) fn new(stats: ExporterStats, budget: LabelBudget) -> Self {
        Self { stats, budget: Some(Mutex::new(budget)) }
    }

    /// Limits how many VMs have series, from the next look on.
    #[cfg(feature = "otel")]
    pub(super) fn set_label_budget(&self, vms: usize) {
        if let Some(budget) = &self.budget {
            budget.lock().unwrap_or_else(PoisonError::into_inner).set_vms(vms);
        }
    }

    /// All families, always in the same order.
    #[cfg(feature = "otel")]
    pub(super) fn look(&self, snapshot: &Snapshot, stale: bool) -> Vec<Family> {
        let mut families = self.of_snapshot(snapshot, stale);
        families.extend(self.of_exports(snapshot));
        families
    }

    /// Families of the snapshot.
    pub(super) fn of_snapshot(&self, snapshot: &Snapshot, stale: bool) -> Vec<Family> {
        self.fit(snapshot, stale, families::of_snapshot(snapshot))
    }

    /// Families of the snapshot, within the budget of this exporter.
    pub(super) fn fit(&self, snapshot: &Snapshot, stale: bool, mut families: Vec<Family>) -> Vec<Family> {
        if stale {
            let is_of_vms =
                |family: &&mut Family| family.prefix.is_none() || family.metric.has_label(ID.name);
            let of_vms = families.iter_mut().filter(is_of_vms);
            of_vms.for_each(|family| family.samples.clear());
        } else if let Some(budget) = &self.budget {
            // A panic inside may have left out a step of a counter; all steps after it are right.
            budget.lock().unwrap_or_else(PoisonError::into_inner).fit(snapshot, &mut families);
        }
        families
    }

    /// These metrics, all samples of them.
    #[cfg(feature = "otel")]
    pub(super) fn of_groups(&self, groups: &'static [Group], snapshot: &Snapshot) -> Vec<Family> {
        families::of_groups(groups, snapshot, &self.stats)
    }

    /// Families of the exporters themselves.
    pub(super) fn of_exports(&self, snapshot: &Snapshot) -> Vec<Family> {
        families::of_exports(snapshot, &self.stats)
    }
}
