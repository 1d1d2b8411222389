//! When the processes of the VMs started: said once and kept, for the clock may be set meanwhile.

use std::collections::HashMap;

use rustix::param::clock_ticks_per_second;

use crate::host::Host;

/// A pid is used again; with the start in clock ticks since boot it means one process and no other.
pub(super) type Process = (u32, u64);

#[derive(Debug, Default)]
pub(super) struct Processes {
    started: HashMap<Process, ProcessStart>,
    /// Of the tick that asked last.
    boot_time: (u64, Option<u64>),
}

#[derive(Debug)]
struct ProcessStart {
    last_tick: u64,
    /// In seconds of Unix time; `None` on a host that does not say when it was booted.
    at: Option<f64>,
    /// The id of its VM, of which all its series are.
    id: Option<String>,
    has_other_series: bool,
}

impl Processes {
    pub(super) fn started(&mut self, process: Process, tick: u64, host: &Host) -> Option<f64> {
        let boot_time = &mut self.boot_time;
        let started = self.started.entry(process).or_insert_with(|| {
            if boot_time.0 != tick {
                *boot_time = (tick, host.boot_time());
            }
            let after_boot = process.1 as f64 / clock_ticks_per_second() as f64;
            let at = boot_time.1.map(|boot| boot as f64 + after_boot);
            ProcessStart { last_tick: tick, at, id: None, has_other_series: false }
        });
        started.last_tick = tick;
        started.at
    }

    /// Since when the series of a VM count what this process does: its start, unless that was counted under another id.
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
