//! The label budget of one exporter limits how many VMs have series.
//!
//! Pure: snapshots in, samples out. The VMs beyond the budget share the series of the rest. Each step of a counter goes to
//! the VM's own series while the VM is among the top, else to the series of the rest. So all series that were ever shown
//! add up to the true counters, and none of them falls.

mod members;
mod processes;
mod sums;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::exporter_stats::BudgetStats;
use super::families::Family;
use crate::model::Snapshot;
use members::Members;
use processes::Processes;
use sums::Sums;

/// `instance_id`, `instance_name` and `device` of the series of the rest.
pub(crate) const OTHER: &str = "other";

/// How long a VM is remembered that a source loses and may find again. Later it counts as a new one.
const MEMORY: Duration = Duration::from_secs(3600);

/// The behaviour beyond the budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverBudget {
    /// A warning in the log and a count; all series are shown.
    #[default]
    Warn,
    /// The VMs with the most traffic keep their series, the rest is added up.
    Aggregate,
}

/// How many VMs may have series of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub vms: usize,
    pub over: OverBudget,
}

impl Budget {
    /// 0 VMs are no limit.
    #[cfg(feature = "daemon")]
    pub(super) fn new(vms: usize, over: OverBudget) -> Self {
        if vms == 0 { Self::default() } else { Self { vms, over } }
    }
}

/// No limit.
impl Default for Budget {
    fn default() -> Self {
        Self { vms: usize::MAX, over: OverBudget::Warn }
    }
}

/// Keeps to a budget, from one snapshot to the next.
#[derive(Debug)]
pub(crate) struct LabelBudget {
    budget: Budget,
    counts: Arc<BudgetStats>,
    /// VMs that have ended count, too, while their final counters are shown.
    counts_ended: bool,
    exceeded: bool,
    /// Of the latest snapshot; the first is 1.
    tick: u64,
    members: Members,
    processes: Processes,
    sums: Sums,
}

impl LabelBudget {
    /// `exporter` names the exporter in the log and in the metrics.
    pub fn new(exporter: &'static str, budget: Budget) -> Self {
        Self {
            budget,
            counts: Arc::new(BudgetStats::new(exporter)),
            counts_ended: true,
            exceeded: false,
            tick: 0,
            members: Members::new(budget.vms),
            processes: Processes::default(),
            sums: Sums::default(),
        }
    }

    /// Counts only the VMs that are running.
    #[cfg(feature = "otel")]
    pub fn without_ended(self) -> Self {
        Self { counts_ended: false, ..self }
    }

    /// Another number of VMs, from the next snapshot on.
    #[cfg(feature = "otel")]
    pub fn set_vms(&mut self, vms: usize) {
        self.budget.vms = vms;
        self.members.set_limit(vms);
    }

    pub fn counts(&self) -> Arc<BudgetStats> {
        Arc::clone(&self.counts)
    }

    /// Counts the VMs of a snapshot. Returns whether its families must be brought within the budget.
    pub fn observe(&mut self, snapshot: &Snapshot) -> bool {
        let counted = snapshot.vms.iter().filter(|vm| vm.running || self.counts_ended);
        self.check_limit(counted.count());
        self.budget.over == OverBudget::Aggregate
    }

    /// Brings the families of this snapshot within the budget. A snapshot that it has seen changes nothing. In a snapshot
    /// older than the last one the counters stay as they were, as they would else seem to begin anew.
    pub fn fit(&mut self, snapshot: &Snapshot, mut families: Vec<Family>) -> Vec<Family> {
        let is_old = self.tick > snapshot.tick;
        if self.tick < snapshot.tick {
            self.tick = snapshot.tick;
            self.members.update(&snapshot.vms);
            self.processes.update(&snapshot.vms, snapshot.taken);
        }
        let now = (!is_old).then_some(snapshot.taken);
        for family in &mut families {
            self.sums.fit(family, &self.members, &self.processes, now);
        }
        self.sums.forget(snapshot.taken);
        families
    }

    /// One line and one count per transition.
    fn check_limit(&mut self, vms: usize) {
        self.counts.observe(vms);
        let (exporter, budget) = (self.counts.exporter(), self.budget.vms);
        let exceeded = vms > budget;
        if exceeded && !self.exceeded {
            self.counts.exceed();
            let then = match self.budget.over {
                OverBudget::Warn => "all are shown",
                OverBudget::Aggregate => "those with the least traffic are shown as one",
            };
            tracing::warn!("{exporter}: {vms} VMs are more than the label budget of {budget}: {then}");
        } else if self.exceeded && !exceeded {
            tracing::info!("{exporter}: {vms} VMs are within the label budget of {budget} again");
        }
        self.exceeded = exceeded;
    }
}

fn is_forgotten(seen: Instant, now: Instant) -> bool {
    now.saturating_duration_since(seen) > MEMORY
}

#[cfg(test)]
mod tests;
