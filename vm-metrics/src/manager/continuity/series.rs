//! What of a VM is one series: since when it counts, and what was counted before the device that it is of now.

use super::processes::Process;
use super::{Continuity, DeviceKey, DeviceReading};
use crate::model::{EarlierCounts, FrameCounts, InstanceInfo, Nic, NicSince, NicStats, Tenant, VmSince};

impl Continuity {
    /// Whether the process started after this daemon, so that none before it can have published anything of it.
    pub(super) fn is_new(&mut self, process: Option<Process>) -> bool {
        let Self { processes, tick, host, began, .. } = self;
        process.and_then(|process| processes.started(process, *tick, host)).is_some_and(|at| at > *began)
    }

    /// Takes up a VM, before its interfaces are merged.
    pub(in crate::manager) fn enter(&mut self, vm: &InstanceInfo, start_ticks: Option<u64>) {
        self.sums.enter((vm, Tenant::of(vm, &self.trust)), start_ticks, self.now);
    }

    /// Since when the series of a VM count what its process does.
    pub(in crate::manager) fn vm_since(&mut self, vm: &InstanceInfo, start_ticks: Option<u64>) -> VmSince {
        let process = vm.hypervisor_pid.zip(start_ticks);
        let since = process.and_then(|process| self.processes.since(process, &vm.id));
        let process = since.filter(|_| !self.sums.has_other_series(vm));
        VmSince { process, cpu_wait: process.map(|started| started.max(self.began)) }
    }

    /// Goes on with the counter of an interface: notes what was counted before the present device, and since when.
    pub(in crate::manager) fn continue_counter(
        &mut self,
        vm: &InstanceInfo,
        reading: &DeviceReading<'_>,
        stats: &mut NicStats,
    ) {
        let Some(account) = self.accounts.get_mut(&DeviceKey::new(reading.nic, reading.ifindex)) else {
            return;
        };
        let counter = self.sums.counter(vm, reading.nic, self.tick);
        counter.step(account.share, stats.counts(), account.counts_since, account.earlier);
        if account.renamed_at.is_some() {
            counter.forget_beginning();
        }
        if account.take_replaced() {
            counter.forget_ebpf();
            self.changed = true;
        }
        account.earlier = counter.earlier();
        stats.earlier = account.earlier.map(|earlier| earlier.counts);
        stats.since = counter.since();
        if self.sums.has_other_series(vm) {
            stats.since = NicSince::default();
        }
    }

    /// Adds what a device has counted that had the name of an interface and that no tick has seen.
    pub(in crate::manager) fn add_short_lived(
        &mut self,
        vm: &InstanceInfo,
        nic: &Nic,
        rx: FrameCounts,
        tx: FrameCounts,
    ) {
        let came = (self.tick > 1).then_some(self.now);
        let counts = EarlierCounts { rx, tx, ..EarlierCounts::default() };
        self.sums.counter(vm, nic, self.tick).remade(counts, came);
    }
}
