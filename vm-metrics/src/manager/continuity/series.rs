//! Dates the beginnings of series, over all devices of an interface.

use super::processes::Process;
use super::{Continuity, ContinuityTick, DeviceReading};
use crate::model::{EarlierCounts, FrameCounts, InstanceInfo, Nic, NicSince, NicStats, Tenant, VmSince};

impl ContinuityTick<'_> {
    /// Whether the process started after this daemon: then no daemon before has published any of it.
    pub(super) fn is_new(&mut self, process: Option<Process>) -> bool {
        let started = process.and_then(|(pid, start_ticks)| self.start_time(pid, start_ticks));
        started.is_some_and(|at| at > self.state.began)
    }

    /// Takes up a VM, before its interfaces are merged.
    pub(in crate::manager) fn enter(&mut self, vm: &InstanceInfo, start_ticks: Option<u64>) {
        self.state.sums.enter((vm, Tenant::of(vm, &self.state.trust)), start_ticks, self.now);
    }

    /// The time from which the series of a VM count its process.
    pub(in crate::manager) fn vm_since(&mut self, vm: &InstanceInfo, start_ticks: Option<u64>) -> VmSince {
        let process = vm.hypervisor_pid.zip(start_ticks);
        let since = process.and_then(|process| self.state.processes.since(process, &vm.id));
        let process = since.filter(|_| !self.state.sums.has_other_series(vm));
        VmSince { process, cpu_wait: process.map(|started| started.max(self.state.began)) }
    }

    /// Continues the counter of an interface: adds the counts before the present device, and their beginning.
    pub(in crate::manager) fn continue_counter(
        &mut self,
        vm: &InstanceInfo,
        reading: &DeviceReading<'_>,
        stats: &mut NicStats,
    ) {
        let Continuity { accounts, sums, tick, changed, .. } = &mut *self.state;
        let Some(account) = accounts.get_mut(&reading.device.id) else { return };
        let counter = sums.counter(vm, reading.nic, *tick);
        counter.step(account.share, stats.counts(), account.counts_since, account.earlier);
        if account.renamed_at.is_some() {
            counter.forget_beginning();
        }
        if account.take_replaced() {
            counter.forget_ebpf();
            *changed = true;
        }
        account.earlier = counter.earlier();
        stats.earlier = account.earlier.map(|earlier| earlier.counts);
        stats.since = counter.since();
        if sums.has_other_series(vm) {
            stats.since = NicSince::default();
        }
    }

    /// Adds the counts of a device that had the name of an interface between two ticks.
    pub(in crate::manager) fn add_short_lived(
        &mut self,
        vm: &InstanceInfo,
        nic: &Nic,
        rx: FrameCounts,
        tx: FrameCounts,
    ) {
        let came = (self.state.tick > 1).then_some(self.now);
        let counts = EarlierCounts { rx, tx, ..EarlierCounts::default() };
        self.state.sums.counter(vm, nic, self.state.tick).add_short_lived(counts, came);
    }
}
