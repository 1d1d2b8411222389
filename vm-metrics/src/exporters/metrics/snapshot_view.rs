//! The part of a snapshot that a metric of one kind may show.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use super::kind::Kind;
use super::number::Since;
use crate::exporters::exporter_stats::ExporterStats;
use crate::model::{
    ComponentRun, Lifecycle, MissedTicks, NicStats, Overuse, Snapshot, VmStats, unix_seconds,
};

/// A snapshot as a metric of one kind may show it: gauges end with their VM or interface, counters are shown for the
/// retention.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotView<'s> {
    snapshot: &'s Snapshot,
    exporters: &'s ExporterStats,
    kind: Kind,
}

impl<'s> SnapshotView<'s> {
    pub fn new(snapshot: &'s Snapshot, exporters: &'s ExporterStats, kind: Kind) -> Self {
        Self { snapshot, exporters, kind }
    }

    /// The VMs that the metric shows.
    pub fn vms(&self) -> impl Iterator<Item = &'s VmStats> {
        let also_ended = self.kind == Kind::Counter;
        self.snapshot.vms.iter().filter(move |vm| vm.running || also_ended)
    }

    /// For the one gauge that also shows VMs that have ended.
    pub fn vms_also_ended(&self) -> impl Iterator<Item = &'s VmStats> {
        self.snapshot.vms.iter()
    }

    /// Their interfaces. Counters go on over the devices that had the name.
    pub fn nics(&self) -> impl Iterator<Item = (&'s VmStats, Cow<'s, NicStats>)> {
        let counts = self.kind == Kind::Counter;
        let nics = self.vms().flat_map(|vm| vm.nics.iter().map(move |nic| (vm, nic)));
        let nics = nics.filter(move |(_, nic)| counts || !nic.gone);
        nics.map(move |(vm, nic)| (vm, if counts { nic.with_earlier() } else { Cow::Borrowed(nic) }))
    }

    /// Since when the daemon counts its own work.
    pub fn daemon_since(&self) -> Since {
        Some(unix_seconds(self.snapshot.counting_since))
    }

    /// The statistics of the exporters. Only the metrics of [`EXPORTER_GROUPS`](super::EXPORTER_GROUPS) use them: they change
    /// between two looks at one snapshot.
    pub fn exporters(&self) -> &'s ExporterStats {
        self.exporters
    }

    pub fn lifecycle(&self) -> &'s Lifecycle {
        &self.snapshot.lifecycle
    }

    pub fn tick(&self) -> u64 {
        self.snapshot.tick
    }

    pub fn ticks_duration(&self) -> Duration {
        self.snapshot.ticks_duration
    }

    pub fn taken_at(&self) -> SystemTime {
        self.snapshot.taken_at
    }

    pub fn missed(&self) -> MissedTicks {
        self.snapshot.missed
    }

    pub fn components(&self) -> &'s [ComponentRun] {
        &self.snapshot.components
    }

    pub fn overuse(&self) -> &'s Vec<Overuse> {
        &self.snapshot.overuse
    }
}
