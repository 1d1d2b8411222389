//! One tick: asks the sources who exists, the readers what they use, and merges it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;

use super::comings::Comings;
use super::health_log::HealthLog;
use super::ledger::Ledger;
use super::retain::{self, Departed, Tick};
use super::{judge, merge};
use crate::host::Host;
use crate::model::{
    Batch, InstanceInfo, Late, PartHealth, PartKind, PartRun, PartTotals, Snapshot, Trust, VmSet,
    unix_seconds,
};
use crate::net::events::EventPoller;
use crate::readers::{Purpose, Reader, ReaderConfig, ReaderContext, StartOutcome};
use crate::sources::{InstanceSource, Sources};

/// Makes snapshots: one per call of [`tick`](Self::tick).
pub(super) struct Engine {
    sources: Sources,
    readers: Vec<(&'static str, ReaderState)>,
    ledger: Ledger,
    departed: Departed,
    before: Tick,
    comings: Comings,
    health_log: HealthLog,
    ticks: u64,
    ticks_duration: Duration,
    totals: HashMap<(PartKind, &'static str), PartTotals>,
    began: SystemTime,
    watch: EventPoller,
}

/// Why a manager cannot start.
#[derive(Debug, Error)]
pub enum ManagerError {
    /// Going on would harm, for example because another daemon has the pins.
    #[error("reader {name}: {reason}")]
    Refused {
        /// Of the reader that says so.
        name: &'static str,
        /// In a sentence.
        reason: String,
    },
}

enum ReaderState {
    Running(Box<dyn Reader>),
    Not(PartHealth),
}

impl Engine {
    /// Starts the readers. One that cannot start is reported in every snapshot, and logged once.
    ///
    /// # Errors
    /// When a reader says that going on would harm, for example because another daemon has its pins.
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
        let context = ReaderContext { host: host.clone(), purpose, trust: trust.clone(), watch };
        let start = |reader: ReaderConfig| {
            let name = reader.name;
            match reader.start(&context) {
                StartOutcome::Running(reader) => Ok((name, ReaderState::Running(reader))),
                StartOutcome::Not(health) => Ok((name, ReaderState::Not(health))),
                StartOutcome::Refused(reason) => Err(ManagerError::Refused { name, reason }),
            }
        };
        let readers = readers.into_iter().map(start).collect::<Result<_, _>>()?;
        if let Some(dir) = state_dir {
            sources.remember_in(dir, purpose == Purpose::Look);
        }
        Ok(Self {
            sources,
            readers,
            ledger: Ledger::new(host.clone(), purpose, state_dir, trust.clone()),
            departed: Departed::new(retention, trust.clone()),
            before: Tick::default(),
            comings: Comings::new(host),
            health_log: HealthLog::default(),
            ticks: 0,
            ticks_duration: Duration::ZERO,
            totals: HashMap::new(),
            began: SystemTime::now(),
            watch: context.watch,
        })
    }

    /// What calls for a tick before its time.
    pub(super) fn watch(&self) -> EventPoller {
        self.watch.clone()
    }

    /// Lists from this source before all others; replaces the one that was set before.
    pub(super) fn set_instance_source(&mut self, source: Box<dyn InstanceSource>) {
        self.sources.set_own(source);
    }

    /// Whether this VM was in the last tick, with this process and these interfaces.
    pub(super) fn knows(&self, vm: &InstanceInfo) -> bool {
        let is_it = |known: &InstanceInfo| {
            known.id == vm.id && known.hypervisor_pid == vm.hypervisor_pid && known.nics == vm.nics
        };
        self.before.vms.vms.iter().any(is_it)
    }

    /// Lists, reads and merges once.
    pub(super) fn tick(&mut self, late: Late) -> Arc<Snapshot> {
        let began = Instant::now();
        let (mut vms, source_reports) = self.sources.list();
        let mut parts: Vec<PartRun> = source_reports.iter().map(judge::source_run).collect();
        parts.extend(self.sources.switched_off().iter().map(|name| judge::source_off(name)));
        let mut batch = Batch::default();
        for (name, state) in &mut self.readers {
            parts.push(run_reader(name, state, &vms, &mut batch));
        }
        // It may have ended since it was listed, and a program's own source may not have heard of it.
        vms.vms.retain(|vm| vm.hypervisor_pid.is_none_or(|pid| !batch.ended.contains(&pid)));
        let leaving = retain::leaving(&self.before, &vms, &batch);
        retain::take_from_present(&leaving, &mut batch);
        let mut last = retain::handed_over(&leaving, &batch);
        for (_, state) in &mut self.readers {
            if let ReaderState::Running(reader) = state {
                reader.last_words(&leaving, &mut last);
            }
        }
        self.ledger.know(&vms, &batch);
        self.ledger.hear_of_remade((&vms, &mut batch), (&leaving, &mut last));
        self.ledger.hear(&batch, &leaving);
        let (stats, last_words) = merge::merge((&vms, &batch), (&leaving.vms, &last), &mut self.ledger);
        // The merge has written the state.
        if let Some(state) = self.ledger.state_health().map(judge::state_run) {
            parts.push(state);
        }
        self.health_log.note(&parts);
        self.add_up(&mut parts);
        let mut overuse = self.ledger.take_overuse();
        overuse.merge(self.departed.add(&leaving.vms, last_words, &self.before.stats, began));
        last.ended.extend(&batch.ended);
        let lifecycle = self.comings.take(&vms, &batch, &last.ended);
        let mut shown = stats.clone();
        self.departed.show(&mut shown, &vms);
        self.departed.succeed(&mut shown, unix_seconds(SystemTime::now()));
        self.before = Tick { vms, stats };
        self.ticks += 1;
        let tick_duration = began.elapsed();
        self.ticks_duration += tick_duration;
        Arc::new(Snapshot {
            tick: self.ticks,
            vms: shown,
            lifecycle,
            parts,
            overuse: overuse.into_list(),
            late,
            tick_duration,
            ticks_duration: self.ticks_duration,
            taken: Instant::now(),
            taken_at: SystemTime::now(),
            counting_since: self.began,
        })
    }

    fn add_up(&mut self, parts: &mut [PartRun]) {
        for part in parts {
            let totals = self.totals.entry((part.kind, part.name)).or_default();
            totals.add(part);
            part.totals = *totals;
        }
    }
}

fn run_reader(name: &'static str, state: &mut ReaderState, vms: &VmSet, batch: &mut Batch) -> PartRun {
    match state {
        ReaderState::Running(reader) => {
            let began = Instant::now();
            let report = reader.read(vms, batch);
            judge::reader_run(name, &report, began.elapsed())
        }
        ReaderState::Not(health) => PartRun {
            kind: PartKind::Reader,
            name,
            health: health.clone(),
            duration: None,
            items: 0,
            errors: 0,
            absent: 0,
            lost: None,
            pinned: None,
            overuse: Vec::new(),
            totals: PartTotals::default(),
        },
    }
}
