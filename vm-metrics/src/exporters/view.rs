//! The metrics of a snapshot that one exporter shows.
//!
//! They stay within its label budget. A snapshot that is too old is shown without its VMs.

use std::sync::{Mutex, PoisonError};

use super::budget::LabelBudget;
use super::exporter_stats::ExporterStats;
use super::families::{self, Family, FamilySink};
use super::metrics::labels::ID;
use super::metrics::{EXPORTER_GROUPS, GROUPS, Group, Metric, SeriesGroup};
use crate::model::Snapshot;

/// One exporter's view of the snapshots.
#[derive(Debug)]
pub struct View {
    stats: ExporterStats,
    budget: Option<Mutex<LabelBudget>>,
    groups: Vec<SeriesGroup>,
}

/// Shows all.
impl Default for View {
    fn default() -> Self {
        Self { stats: ExporterStats::default(), budget: None, groups: vec![SeriesGroup::All] }
    }
}

impl View {
    pub(super) fn new(stats: ExporterStats, budget: LabelBudget, groups: Vec<SeriesGroup>) -> Self {
        Self { stats, budget: Some(Mutex::new(budget)), groups }
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
        let mut families = Vec::new();
        self.write(snapshot, stale, &mut families);
        families.extend(families::of_exports(snapshot, &self.stats));
        families
    }

    /// Writes the families of the snapshot, within the groups and the budget of this exporter.
    pub(super) fn write(&self, snapshot: &Snapshot, stale: bool, sink: &mut dyn FamilySink) {
        let is_of_vms = |prefix: Option<&str>, metric: &Metric| prefix.is_none() || metric.has_label(ID.name);
        let is_shown = |prefix: Option<&str>, metric: &Metric| {
            metric.group.is_in(&self.groups) && !(stale && is_of_vms(prefix, metric))
        };
        let shown =
            |sink: &mut dyn FamilySink| families::write(GROUPS, snapshot, &self.stats, is_shown, sink);
        let collect = || {
            let mut families = Vec::new();
            shown(&mut families);
            families
        };
        match if stale { None } else { self.fitted(snapshot, collect) } {
            Some(families) => families.iter().for_each(|family| family.write(sink)),
            None => shown(sink),
        }
    }

    /// The families within the budget of this exporter; `None` when it shows all as they are.
    pub(super) fn fitted(
        &self,
        snapshot: &Snapshot,
        families: impl FnOnce() -> Vec<Family>,
    ) -> Option<Vec<Family>> {
        // A panic inside may have left out a step of a counter; all steps after it are right.
        let mut budget = self.budget.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        budget.observe(snapshot).then(|| budget.fit(snapshot, families()))
    }

    /// These metrics, all samples of them.
    #[cfg(feature = "otel")]
    pub(super) fn of_groups(&self, groups: &'static [Group], snapshot: &Snapshot) -> Vec<Family> {
        families::of_groups(groups, snapshot, &self.stats)
    }

    /// Writes the families of the exporters themselves.
    #[cfg(feature = "daemon")]
    pub(super) fn write_exports(&self, snapshot: &Snapshot, sink: &mut dyn FamilySink) {
        families::write(EXPORTER_GROUPS, snapshot, &self.stats, |_, _| true, sink);
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::{Budget, OTHER, OverBudget};
    use super::*;
    use crate::exporters::metrics::tests::full;
    use crate::model::VmStats;

    /// Both select: the rest is summed up, and only metrics of the groups are shown.
    #[test]
    fn the_budget_sums_up_the_shown_groups() {
        let budget = LabelBudget::new("test", Budget { vms: 1, over: OverBudget::Aggregate });
        let view = View::new(ExporterStats::default(), budget, Vec::new());
        let vms = ["a", "b", "c"].map(|id| VmStats { instance_id: id.into(), ..full().vms.remove(0) });
        let mut families: Vec<Family> = Vec::new();
        view.write(&Snapshot { vms: vms.into(), ..full() }, false, &mut families);
        families.retain(|family| !family.samples.is_empty());
        assert!(families.iter().all(|family| family.metric.group == SeriesGroup::Base));
        let cpu = families.iter().find(|family| family.metric.name == "cpu_seconds_total").unwrap();
        let own = |is_other: bool| cpu.samples.iter().filter(move |has| (has.labels[0] == OTHER) == is_other);
        let sum = |is_other| own(is_other).map(|sample| sample.value.as_f64()).sum::<f64>();
        assert_eq!((own(false).count(), own(true).count()), (1, 1), "{:?}", cpu.samples);
        assert!(sum(false) > 0.0 && sum(true) == 2.0 * sum(false), "{:?}", cpu.samples);
    }
}
