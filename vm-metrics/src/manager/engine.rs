//! Does one tick: lists the VMs, reads them, and merges the readings.

use std::collections::HashMap;
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;

use super::continuity::Continuity;
use super::health_log::HealthLog;
use super::lifecycle::LifecycleCounter;
use super::retain::{self, LastTick, TerminatedVms};
use super::{health, merge};
use crate::host::Host;
use crate::model::{
    Batch, ComponentHealth, ComponentKind, ComponentRun, ComponentTotals, InstanceInfo, MissedTicks,
    Snapshot, Trust, VmSet, unix_seconds,
};
use crate::net::events::EventPoller;
use crate::net::namespaces::Namespaces;
use crate::readers::{Purpose, Reader, ReaderConfig, ReaderContext, StartOutcome};
use crate::sources::{InstanceSource, ProgramSource, Sources};

/// Makes snapshots: one per call of [`tick`](Self::tick).
pub(super) struct Engine {
    sources: Sources,
    readers: Vec<(&'static str, ReaderState)>,
    continuity: Continuity,
    terminated: TerminatedVms,
    before: LastTick,
    lifecycle: LifecycleCounter,
    health_log: HealthLog,
    ticks: u64,
    ticks_duration: Duration,
    totals: HashMap<(ComponentKind, &'static str), ComponentTotals>,
    began: SystemTime,
    watch: EventPoller,
    namespaces: Namespaces,
}

/// Why a manager cannot start.
#[derive(Debug, Error)]
pub enum ManagerError {
    /// Going on would harm, for example because another daemon has the pins.
    #[error("reader {name}: {reason}")]
    Refused {
        /// The reader that refuses.
        name: &'static str,
        /// As one sentence.
        reason: String,
    },
}

enum ReaderState {
    Running(Box<dyn Reader>),
    Not(ComponentHealth),
}

impl Engine {
    /// Starts the readers. One that cannot start is reported in every snapshot, and logged once.
    ///
    /// # Errors
    /// When going on would harm, for example because another daemon has a reader's pins.
    pub(super) fn new(
        mut sources: Sources,
        readers: Vec<ReaderConfig>,
        host: &Host,
        retention: Duration,
        state_dir: Option<&Path>,
        trust: &Trust,
        purpose: Purpose,
    ) -> Result<Self, ManagerError> {
        let watch = match purpose {
            Purpose::Serve => EventPoller::new().unwrap_or_else(|error| {
                tracing::warn!("{error}: what happens is seen at the next tick");
                EventPoller::default()
            }),
            Purpose::Look => EventPoller::default(),
        };
        let namespaces = Namespaces::new(host, trust, watch.clone());
        let mut context =
            ReaderContext { host: host.clone(), purpose, trust: trust.clone(), watch, namespaces };
        let start = |reader: ReaderConfig| {
            let name = reader.name;
            match reader.start(&mut context) {
                StartOutcome::Running(reader) => Ok((name, ReaderState::Running(reader))),
                StartOutcome::Not(health) => Ok((name, ReaderState::Not(health))),
                StartOutcome::Refused(reason) => Err(ManagerError::Refused { name, reason }),
            }
        };
        let readers = readers.into_iter().map(start).collect::<Result<_, _>>()?;
        if let Some(dir) = state_dir {
            sources.remember_in(dir, purpose == Purpose::Look);
        }
        let mut namespaces = context.namespaces;
        let continuity = Continuity::new(host.clone(), purpose, state_dir, trust.clone(), namespaces.table());
        Ok(Self {
            sources,
            readers,
            continuity,
            terminated: TerminatedVms::new(retention, trust.clone()),
            before: LastTick::default(),
            lifecycle: LifecycleCounter::new(host),
            health_log: HealthLog::default(),
            ticks: 0,
            ticks_duration: Duration::ZERO,
            totals: HashMap::new(),
            began: SystemTime::now(),
            watch: context.watch,
            namespaces,
        })
    }

    /// The events that call for an early tick.
    pub(super) fn watch(&self) -> EventPoller {
        self.watch.clone()
    }

    /// Lists from this source before all others; replaces the one that was set before.
    pub(super) fn set_instance_source(&mut self, source: Box<dyn InstanceSource>) {
        self.sources.set_own(Box::new(ProgramSource(source)));
    }

    /// Whether this VM was in the last tick, with this process and these interfaces.
    pub(super) fn knows(&self, vm: &InstanceInfo) -> bool {
        let is_it = |known: &InstanceInfo| {
            known.id == vm.id && known.hypervisor_pid == vm.hypervisor_pid && known.nics == vm.nics
        };
        self.before.vms.vms.iter().any(is_it)
    }

    /// Lists, reads and merges once.
    pub(super) fn tick(&mut self, missed: MissedTicks) -> Arc<Snapshot> {
        let began = Instant::now();
        let (mut vms, source_reports) = self.sources.list();
        let mut components: Vec<ComponentRun> = source_reports.iter().map(health::source_run).collect();
        components.extend(self.sources.switched_off().iter().map(|name| health::source_off(name)));
        let mut batch = self.read(&vms, &mut components);
        let removals = retain::remove(&self.before, &mut vms, &mut batch);
        for (_, state) in &mut self.readers {
            if let ReaderState::Running(reader) = state {
                reader.read_final(&removals, &mut self.namespaces, &mut batch);
            }
        }
        let now = unix_seconds(SystemTime::now());
        let mut tick = self.continuity.begin_tick(now, &vms, &removals, &batch);
        let (stats, final_stats) = merge::merge(&vms, &removals, &batch, &mut tick);
        // Saved before it is published: a daemon that is killed now must give no byte twice.
        tick.end().save();
        self.namespaces.end_tick(|device| self.continuity.knows(device));
        if let Some(state) = self.continuity.state_health().map(health::state_run) {
            components.push(state);
        }
        self.health_log.note(&components);
        self.add_up(&mut components);
        let mut overuse = self.continuity.take_overuse();
        overuse.merge(self.terminated.add(&removals, final_stats, &self.before.stats, began));
        let lifecycle = self.lifecycle.take(&vms, &batch);
        let mut shown = stats.clone();
        self.terminated.show(&mut shown, &vms);
        self.terminated.succeed(&mut shown, unix_seconds(SystemTime::now()));
        self.before = LastTick { vms, stats };
        self.ticks += 1;
        let tick_duration = began.elapsed();
        self.ticks_duration += tick_duration;
        Arc::new(Snapshot {
            tick: self.ticks,
            vms: shown,
            lifecycle,
            components,
            overuse: overuse.into_list(),
            missed,
            tick_duration,
            ticks_duration: self.ticks_duration,
            taken: Instant::now(),
            taken_at: SystemTime::now(),
            counting_since: self.began,
        })
    }

    /// Reads the VMs. Their devices are found once for all readers, when it is known which processes have ended.
    fn read(&mut self, vms: &VmSet, components: &mut Vec<ComponentRun>) -> Batch {
        let mut batch = Batch::of(vms);
        let mut is_resolved = false;
        for (name, state) in &mut self.readers {
            let reads_devices = matches!(state, ReaderState::Running(reader) if reader.reads_devices());
            if reads_devices && !mem::replace(&mut is_resolved, true) {
                self.namespaces.resolve(vms, &mut batch);
            }
            components.push(run_reader(name, state, vms, &mut self.namespaces, &mut batch));
        }
        self.namespaces.note_read(&batch);
        batch
    }

    fn add_up(&mut self, components: &mut [ComponentRun]) {
        for component in components {
            let totals = self.totals.entry((component.kind, component.name)).or_default();
            totals.add(component);
            component.totals = *totals;
        }
    }
}

fn run_reader(
    name: &'static str,
    state: &mut ReaderState,
    vms: &VmSet,
    namespaces: &mut Namespaces,
    batch: &mut Batch,
) -> ComponentRun {
    match state {
        ReaderState::Running(reader) => {
            let began = Instant::now();
            let report = reader.read(vms, namespaces, batch);
            health::reader_run(name, &report, began.elapsed())
        }
        ReaderState::Not(health) => health::not_run(ComponentKind::Reader, name, health.clone()),
    }
}
