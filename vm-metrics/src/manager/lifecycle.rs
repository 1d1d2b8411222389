//! Counts VMs that start and end, from one tick to the next. Pure.

use std::collections::HashMap;

use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};

use crate::host::Host;
use crate::model::{Batch, EndReason, Hypervisor, InstanceInfo, Lifecycle, VmSet};

/// The VMs of the last tick, and the counts.
#[derive(Debug)]
pub(super) struct LifecycleCounter {
    /// The start of the daemon, in clock ticks since boot; `None` where processes are of another kernel.
    began: Option<u64>,
    /// VMs of the first tick count as older.
    is_first: bool,
    present: Vec<VmPresence>,
    lifecycle: Lifecycle,
}

#[derive(Clone, Debug)]
struct VmPresence {
    id: String,
    pid: Option<u32>,
    /// The start of the process, in clock ticks since boot.
    start_ticks: Option<u64>,
    hypervisor: Hypervisor,
}

impl LifecycleCounter {
    pub(super) fn new(host: &Host) -> Self {
        Self::since(host.is_this_kernel().then(now_ticks))
    }

    fn since(began: Option<u64>) -> Self {
        Self { began, is_first: true, present: Vec::new(), lifecycle: Lifecycle::default() }
    }

    /// Takes in the VMs of a tick, their readings, and the processes that ended since the last tick.
    pub(super) fn take(&mut self, vms: &VmSet, batch: &Batch) -> Lifecycle {
        let mut now: Vec<VmPresence> = vms.vms.iter().map(|vm| VmPresence::of(vm, batch)).collect();
        let before = std::mem::take(&mut self.present);
        let (index_now, index_before) = (Index::of(&now), Index::of(&before));
        for vm in &now {
            if index_before.find(vm, &before).is_none() && self.is_start(vm) {
                self.lifecycle.start(vm.hypervisor);
            }
        }
        for vm in &before {
            if index_now.find(vm, &now).is_none() {
                let is_other = vm.pid.is_some_and(|pid| index_now.pids.contains_key(&pid));
                let has_ended = is_other || vm.pid.is_some_and(|pid| batch.ended.contains(&pid));
                let reason = if has_ended { EndReason::Exited } else { EndReason::Gone };
                self.lifecycle.end(vm.hypervisor, reason);
            }
        }
        // A start time that cannot be read in one tick is the one before.
        for vm in now.iter_mut().filter(|vm| vm.start_ticks.is_none()) {
            vm.start_ticks = index_before.find(vm, &before).and_then(|at| before[at].start_ticks);
        }
        (self.present, self.is_first) = (now, false);
        self.lifecycle.clone()
    }

    /// A VM older than the daemon was found, not started.
    fn is_start(&self, vm: &VmPresence) -> bool {
        vm.start_ticks.zip(self.began).map_or(!self.is_first, |(start, began)| start >= began)
    }
}

impl VmPresence {
    fn of(vm: &InstanceInfo, batch: &Batch) -> Self {
        let (pid, hypervisor) = (vm.hypervisor_pid, vm.hypervisor);
        let process = pid.and_then(|pid| batch.processes.get(&pid));
        Self {
            id: vm.id.clone(),
            pid,
            start_ticks: process.and_then(|process| process.start_ticks),
            hypervisor,
        }
    }

    /// Whether both are one VM: by process, or by id where one of them has no process.
    fn is(&self, other: &Self) -> bool {
        match (self.pid, other.pid) {
            (Some(pid), Some(other_pid)) => {
                pid == other_pid && self.start_ticks.zip(other.start_ticks).is_none_or(|(a, b)| a == b)
            }
            _ => self.id == other.id,
        }
    }
}

/// The clock that process starts are measured by.
fn now_ticks() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let ticks = clock_ticks_per_second();
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let rest = u64::try_from(now.tv_nsec).unwrap_or_default() * ticks / 1_000_000_000;
    seconds * ticks + rest
}

/// Positions of VMs in a list.
struct Index {
    pids: HashMap<u32, usize>,
    ids: HashMap<String, usize>,
}

impl Index {
    fn of(vms: &[VmPresence]) -> Self {
        let pids = vms.iter().enumerate().filter_map(|(at, vm)| Some((vm.pid?, at))).collect();
        let ids = vms.iter().enumerate().map(|(at, vm)| (vm.id.clone(), at)).collect();
        Self { pids, ids }
    }

    fn find(&self, vm: &VmPresence, among: &[VmPresence]) -> Option<usize> {
        let by_pid = vm.pid.and_then(|pid| self.pids.get(&pid));
        let candidates = [by_pid, self.ids.get(&vm.id)].into_iter().flatten().copied();
        candidates.into_iter().find(|at| among[*at].is(vm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProcessReading;

    const BEGAN: u64 = 1000;

    /// Id, pid and start of a VM.
    type Vm = (&'static str, Option<u32>, Option<u64>);

    /// Starts, and ends by an exit and otherwise, after these ticks with the processes that have ended.
    fn counts(ticks: &[(&[Vm], &[u32])]) -> [u64; 3] {
        let mut comings = LifecycleCounter::since(Some(BEGAN));
        let mut counts = [0; 3];
        for (vms, ended) in ticks {
            let info = |(id, pid, _): &Vm| InstanceInfo {
                id: (*id).into(),
                hypervisor_pid: *pid,
                hypervisor: Hypervisor::Qemu,
                ..InstanceInfo::default()
            };
            let set = VmSet { vms: vms.iter().map(info).collect() };
            let mut batch = Batch::default();
            for (_, pid, start_ticks) in vms.iter() {
                let reading = ProcessReading { start_ticks: *start_ticks, ..ProcessReading::default() };
                batch.processes.extend(pid.map(|pid| (pid, reading)));
            }
            batch.ended.extend(*ended);
            let lifecycle = comings.take(&set, &batch);
            let now = lifecycle.each().find(|(hypervisor, _)| *hypervisor == Hypervisor::Qemu).unwrap().1;
            let now = [now.starts, now.exited, now.gone];
            assert!(now.iter().zip(counts).all(|(now, before)| *now >= before), "a counter fell");
            counts = now;
        }
        counts
    }

    const OLD: Vm = ("old", Some(1), Some(500));
    const NEW: Vm = ("new", Some(2), Some(1500));

    #[test]
    fn an_older_vm_has_not_started() {
        assert_eq!(counts(&[(&[OLD], &[])]), [0, 0, 0]);
        assert_eq!(counts(&[(&[], &[]), (&[OLD], &[])]), [0, 0, 0], "a source was late");
        assert_eq!(counts(&[(&[("no process", None, None)], &[])]), [0, 0, 0]);
    }

    #[test]
    fn a_new_process_is_a_start() {
        assert_eq!(counts(&[(&[OLD, NEW], &[])]), [1, 0, 0], "since the daemon's start");
        assert_eq!(counts(&[(&[OLD], &[]), (&[OLD, NEW], &[]), (&[OLD, NEW], &[])]), [1, 0, 0]);
        assert_eq!(counts(&[(&[], &[]), (&[("no process", None, None)], &[])]), [1, 0, 0]);
    }

    #[test]
    fn ends_have_a_reason() {
        assert_eq!(counts(&[(&[OLD, NEW], &[]), (&[NEW], &[1])]), [1, 1, 0]);
        assert_eq!(counts(&[(&[OLD, NEW], &[]), (&[OLD], &[])]), [1, 0, 1]);
        let again = ("new", Some(2), Some(1600));
        assert_eq!(counts(&[(&[NEW], &[]), (&[again], &[])]), [2, 1, 0], "another process has its pid");
        let restarted = ("new", Some(3), Some(1600));
        assert_eq!(counts(&[(&[NEW], &[]), (&[restarted], &[2])]), [2, 1, 0]);
    }

    #[test]
    fn another_name_is_the_same_vm() {
        let renamed = ("other", Some(2), Some(1500));
        assert_eq!(counts(&[(&[NEW], &[]), (&[renamed], &[]), (&[NEW], &[])]), [1, 0, 0]);
        let (unread, orphan) = (("new", Some(2), None), ("new", None, None));
        assert_eq!(counts(&[(&[NEW], &[]), (&[unread], &[]), (&[NEW], &[])]), [1, 0, 0]);
        assert_eq!(counts(&[(&[NEW], &[]), (&[orphan], &[2]), (&[NEW], &[])]), [1, 0, 0]);
    }

    /// Tenants name programs as they like.
    #[test]
    fn programs_of_tenants_are_one_kind() {
        let mut lifecycle = Lifecycle::default();
        for name in ["a", "b", "c"] {
            lifecycle.start(Hypervisor::Program(crate::model::ProgramName::new(name)));
        }
        let starts: Vec<_> =
            lifecycle.each().map(|(hypervisor, counts)| (hypervisor, counts.starts)).collect();
        assert_eq!(starts.len(), 5);
        assert!(starts.contains(&(Hypervisor::Other, 3)));
    }
}
