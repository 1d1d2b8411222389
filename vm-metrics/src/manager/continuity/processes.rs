//! Keeps the start time of each process, for the clock may be set meanwhile.

use std::collections::HashMap;

use rustix::param::clock_ticks_per_second;

use crate::model::Batch;

/// A pid is used again; with the start in clock ticks since boot it means one process and no other.
pub(super) type Process = (u32, u64);

#[derive(Debug, Default)]
pub(super) struct Processes {
    started: HashMap<Process, ProcessStart>,
}

#[derive(Debug)]
struct ProcessStart {
    last_tick: u64,
    /// In seconds of Unix time; `None` on a host without a boot time.
    at: Option<f64>,
    /// The id of its VM, which is in the names of its series.
    id: Option<String>,
    has_other_series: bool,
}

impl Processes {
    /// Whether a process or a thread was read that [`started`](Self::started) has not been asked for.
    pub(super) fn has_new(&self, batch: &Batch) -> bool {
        let processes = batch.processes.iter().chain(&batch.removed_processes);
        let processes = processes.filter_map(|(pid, process)| Some((*pid, process.start_ticks?)));
        let vcpus = batch.threads.values().flat_map(|threads| &threads.vcpus);
        let threads = vcpus.filter_map(|vcpu| Some((vcpu.thread, vcpu.start_ticks?)));
        processes.chain(threads).any(|process| !self.started.contains_key(&process))
    }

    /// Returns the start of a process, in seconds of Unix time. The boot time counts at the first call only.
    pub(super) fn started(&mut self, process: Process, tick: u64, boot_time: Option<u64>) -> Option<f64> {
        let started = self.started.entry(process).or_insert_with(|| {
            let after_boot = process.1 as f64 / clock_ticks_per_second() as f64;
            let at = boot_time.map(|boot| boot as f64 + after_boot);
            ProcessStart { last_tick: tick, at, id: None, has_other_series: false }
        });
        started.last_tick = tick;
        started.at
    }

    /// The time from which the series of a VM count this process: its start, unless it had another id.
    pub(super) fn since(&mut self, process: Process, id: &str) -> Option<f64> {
        let started = self.started.get_mut(&process)?;
        let known = started.id.get_or_insert_with(|| id.to_owned());
        started.has_other_series |= known != id;
        started.at.filter(|_| !started.has_other_series)
    }

    pub(super) fn forget_before(&mut self, tick: u64) {
        self.started.retain(|_, started| started.last_tick >= tick);
    }
}
