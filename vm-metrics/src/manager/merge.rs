//! Turns readings into published numbers. Pure: only continuity keeps state.

mod guest_view;
mod nic;

use guest_view::counts_of;
use nic::nic_stats;

use super::continuity::ContinuityTick;
use crate::model::{
    Batch, InstanceInfo, NicReadings, ShortLivedDevice, ThreadsReading, VcpuReading, VcpuStats, VmSet,
    VmSince, VmStats, by_vm,
};

/// Makes the numbers of present VMs, and the final numbers of removed ones.
pub(super) fn merge(
    vms: &VmSet,
    removals: &VmSet,
    batch: &Batch,
    tick: &mut ContinuityTick<'_>,
) -> (Vec<VmStats>, Vec<VmStats>) {
    let (present, removed) = batch.nics.split_at(vms.nics().count());
    let mut all = |vms, readings, is_removed| {
        by_vm(vms, readings).map(|(vm, nics)| vm_stats(vm, nics, batch, tick, is_removed)).collect()
    };
    // The removed come first: the count of a device up to now is theirs, and its next owner begins there.
    let removed = all(removals, removed, true);
    (all(vms, present, false), removed)
}

fn vm_stats(
    vm: &InstanceInfo,
    readings: &[NicReadings],
    batch: &Batch,
    tick: &mut ContinuityTick<'_>,
    is_removed: bool,
) -> VmStats {
    // The pid of a removed VM may belong to another process already.
    let processes = if is_removed { &batch.removed_processes } else { &batch.processes };
    let process = vm.hypervisor_pid.and_then(|pid| processes.get(&pid)).copied().unwrap_or_default();
    let threads = vm.hypervisor_pid.filter(|_| !is_removed).and_then(|pid| batch.threads.get(&pid));
    let start_time =
        vm.hypervisor_pid.zip(process.start_ticks).and_then(|(pid, start)| tick.start_time(pid, start));
    let start_ticks = process.start_ticks.filter(|_| !is_removed);
    tick.enter(vm, start_ticks);
    // Short-lived devices first: they came before the present ones.
    let short_lived = tick.take_short_lived(vm);
    let short_lived: Vec<_> = short_lived
        .into_iter()
        .map(|ShortLivedDevice { nic, device, stats }| (nic, counts_of(device.kind, &stats)))
        .collect();
    short_lived.iter().for_each(|(nic, (rx, tx))| tick.add_short_lived(vm, nic, *rx, *tx));
    let short_lived: Vec<_> = short_lived.into_iter().map(|(_, counts)| counts).collect();
    let nics: Vec<_> = vm
        .nics
        .iter()
        .zip(readings)
        .map(|(nic, readings)| nic_stats(vm, nic, readings, batch.splits, tick))
        .collect();
    let since = tick.vm_since(vm, start_ticks);
    let network = tick.network_sum(vm, start_ticks, &nics, &short_lived);
    // Without the unmonitored and the left-out interfaces a sum would be too small.
    let is_whole = vm.unmonitored.is_empty() && !vm.has_more_nics;
    let [net_rx_bytes, net_tx_bytes, net_rx_packets, net_tx_packets] =
        network.map(|sum| sum.filter(|_| is_whole));
    VmStats {
        instance_id: vm.id.clone(),
        instance_name: vm.name.clone(),
        hypervisor: vm.hypervisor,
        hypervisor_pid: vm.hypervisor_pid,
        running: true,
        start_time,
        process: process.stats,
        vcpus: threads.map(|threads| vcpus(threads, tick, since)).unwrap_or_default(),
        cgroup: process.cgroup,
        net_rx_bytes,
        net_tx_bytes,
        net_rx_packets,
        net_tx_packets,
        allocated_vcpus: allocated_vcpus(vm, threads),
        allocated_memory_bytes: vm.allocated_memory_bytes,
        actual_memory_bytes: vm.actual_memory_bytes,
        state: vm.state,
        project: vm.project.clone(),
        namespace: vm.namespace.clone(),
        pod_uid: vm.pod_uid.clone(),
        tags: vm.tags.clone(),
        network_limit_rx_bytes_per_second: vm.network_limits.rx_bytes_per_second,
        network_limit_tx_bytes_per_second: vm.network_limits.tx_bytes_per_second,
        restart_attempts: vm.restart_attempts,
        nics: nics.into_iter().map(|(_, nic)| nic).collect(),
        unmonitored: vm.unmonitored.clone(),
        since,
    }
}

/// Where vCPUs can be plugged in, their threads are counted.
fn allocated_vcpus(vm: &InstanceInfo, threads: Option<&ThreadsReading>) -> Option<u32> {
    let most = vm.max_vcpus.unwrap_or(0);
    let counted = threads.and_then(|threads| threads.vcpu_count).filter(|count| *count <= most);
    counted.or(vm.allocated_vcpus)
}

fn vcpus(threads: &ThreadsReading, tick: &mut ContinuityTick<'_>, since: VmSince) -> Vec<VcpuStats> {
    let vcpu = |vcpu: &VcpuReading| VcpuStats {
        vcpu: vcpu.vcpu,
        thread: vcpu.thread,
        cpu_usec: vcpu.times.run_nsec / 1000,
        wait_usec: vcpu.times.wait_nsec / 1000,
        // The series of the threads have the names of those of the process.
        since: vcpu
            .start_ticks
            .and_then(|start| tick.start_time(vcpu.thread, start))
            .filter(|_| since.process.is_some()),
    };
    threads.vcpus.iter().map(vcpu).collect()
}

#[cfg(test)]
mod tests;
