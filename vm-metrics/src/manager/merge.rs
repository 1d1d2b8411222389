//! From what was read to what is published: pure but for the continuity, which remembers.

use vm_metrics_common::DropCounts;

use super::continuity::{Continuity, DeviceAccount, DeviceReading, Totals};
use crate::model::{
    AttachMode, Batch, DirectionStats, EbpfReading, EbpfStats, FrameCounts, InstanceInfo, Nic, NicKind,
    NicSince, NicSource, NicStats, TapReading, TapStats, ThreadsReading, Traffic, VcpuReading, VcpuStats,
    VmSet, VmSince, VmStats,
};

/// What is published of the VMs that are there, and the last words of those that are leaving.
///
/// The leaving come first: what a device had counted up to now is theirs, and whoever has it next begins from there.
pub(super) fn merge(
    present: (&VmSet, &Batch),
    removals: (&VmSet, &Batch),
    continuity: &mut Continuity,
) -> (Vec<VmStats>, Vec<VmStats>) {
    continuity.begin_tick();
    let mut all = |(vms, batch): (&VmSet, &Batch), is_removed| {
        vms.vms.iter().map(|vm| vm_stats(vm, batch, continuity, is_removed)).collect()
    };
    let removals = all(removals, true);
    let stats = (all(present, false), removals);
    continuity.end_tick();
    stats
}

fn vm_stats(vm: &InstanceInfo, batch: &Batch, continuity: &mut Continuity, is_removed: bool) -> VmStats {
    let process = vm.hypervisor_pid.and_then(|pid| batch.processes.get(&pid)).copied().unwrap_or_default();
    let threads = vm.hypervisor_pid.and_then(|pid| batch.threads.get(&pid));
    let start_time =
        vm.hypervisor_pid.zip(process.start_ticks).and_then(|(pid, start)| continuity.start_time(pid, start));
    // What has the pid of one that leaves may be another process already.
    let start_ticks = process.start_ticks.filter(|_| !is_removed);
    continuity.enter(vm, start_ticks);
    // They came before those that are there.
    let remade =
        continuity.take_short_lived(vm).into_iter().map(|(nic, device)| (nic, remade_counts(&device)));
    let remade: Vec<_> = remade.collect();
    remade.iter().for_each(|(nic, (rx, tx))| continuity.add_short_lived(vm, nic, *rx, *tx));
    let remade: Vec<_> = remade.into_iter().map(|(_, counts)| counts).collect();
    let nics: Vec<_> = vm.nics.iter().map(|nic| nic_stats(vm, nic, batch, continuity)).collect();
    let since = continuity.vm_since(vm, start_ticks);
    let network = continuity.network_sum(vm, start_ticks, &nics, &remade);
    // A sum without those that cannot be counted, or that are left out, is no sum.
    let is_whole = vm.uncounted.is_empty() && !vm.has_more_nics;
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
        vcpus: threads.map(|threads| vcpus(threads, continuity, since)).unwrap_or_default(),
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
        uncounted: vm.uncounted.clone(),
        since,
    }
}

/// Where vCPUs can be plugged in, their threads say how many there are.
fn allocated_vcpus(vm: &InstanceInfo, threads: Option<&ThreadsReading>) -> Option<u32> {
    let most = vm.max_vcpus.unwrap_or(0);
    let counted = threads.and_then(|threads| threads.vcpu_count).filter(|count| *count <= most);
    counted.or(vm.allocated_vcpus)
}

/// What a device has counted in its life, received and sent.
fn remade_counts(device: &TapReading) -> (FrameCounts, FrameCounts) {
    let GuestView { rx, tx } = device_counts(device.kind, &device.stats);
    (rx, tx)
}

fn vcpus(threads: &ThreadsReading, continuity: &mut Continuity, since: VmSince) -> Vec<VcpuStats> {
    let vcpu = |vcpu: &VcpuReading| VcpuStats {
        vcpu: vcpu.vcpu,
        thread: vcpu.thread,
        cpu_usec: vcpu.times.run_nsec / 1000,
        wait_usec: vcpu.times.wait_nsec / 1000,
        // Where the series of the process have had other names, so have these.
        since: vcpu
            .start_ticks
            .and_then(|start| continuity.start_time(vcpu.thread, start))
            .filter(|_| since.process.is_some()),
    };
    threads.vcpus.iter().map(vcpu).collect()
}

/// With the number of its share, where anything was read.
fn nic_stats(
    vm: &InstanceInfo,
    nic: &Nic,
    batch: &Batch,
    continuity: &mut Continuity,
) -> (Option<u64>, NicStats) {
    // Numbers of two devices that had the name one after the other are not mixed. The device's reading is the earlier one.
    // Its device leaves in the next tick, with its final counters; what eBPF counts of the new one waits until then.
    let of_device = batch.taps.get(nic);
    let is_newer = |ebpf: &&EbpfReading| {
        of_device.is_some_and(|device| device.ifindex != 0 && device.ifindex != ebpf.ifindex)
    };
    let ebpf = batch.ebpf.get(nic).filter(|ebpf| !is_newer(ebpf));
    let device = of_device.filter(|device| ebpf.is_none_or(|ebpf| ebpf.ifindex == device.ifindex));
    let of_ebpf = ebpf.map(|ebpf| (ebpf.ifindex, ebpf.kind));
    let Some((ifindex, kind)) = of_ebpf.or(device.map(|device| (device.ifindex, device.kind))) else {
        return (None, NicStats { device: nic.tap.clone(), netns: nic.netns, ..NicStats::default() });
    };
    let GuestView { rx, tx } = device.map(|device| device_counts(kind, &device.stats)).unwrap_or_default();
    let namespace = nic.netns.and_then(|netns| batch.namespaces.get(&netns)).copied();
    let reading = DeviceReading { nic, ifindex, namespace, rx, tx };
    let account = continuity.account(&vm.id, &reading);
    // The equation of what is offered is a TAP's: a macvtap does not say what was delivered.
    let is_tap = kind == NicKind::Tap;
    let drops = batch.drops.get(nic).filter(|drops| is_tap && drops.ifindex == ifindex);
    let drops = drops.map(|drops| drops.counts);
    let cumulative = cumulative(kind, account, rx, tx, ebpf, drops);
    let (rx_backlog_packets, rx_backlog_bytes) = backlog(account, &cumulative, is_tap && device.is_some());
    let gap = gap(kind, account, &cumulative, tx.packets, ebpf, is_tap && device.is_some());
    account.attached(ebpf.and_then(|ebpf| ebpf.since));
    let published = account.publish(cumulative);
    let is_awaited = is_tap && batch.drops_awaited.contains(nic);
    let counted = drops.map(device_dropped);
    let rx_dropped_by_device = account.unexplained.update(&cumulative, &published, counted, is_awaited);
    let (start_time, share) = (account.since, account.share);
    let counted = ebpf.filter(|_| counts_what_was_sent(kind));
    let mut stats = NicStats {
        device: nic.tap.clone(),
        netns: nic.netns,
        ifindex: Some(ifindex),
        kind,
        source: counted.map(|_| NicSource::Ebpf).or(device.map(|device| device.source)).unwrap_or_default(),
        attach: ebpf.map_or(AttachMode::None, |ebpf| ebpf.attach),
        start_time,
        rx: published.rx,
        tx: published.tx,
        mismatch_bytes: counted.and_then(|_| mismatch(cumulative.tx.bytes, tx.bytes)),
        ebpf: published.ebpf,
        rx_backlog_packets,
        rx_backlog_bytes,
        rx_dropped_by_device,
        rx_gap_packets: gap.rx,
        tx_gap_packets: gap.tx,
        earlier: None,
        gone: false,
        since: NicSince::default(),
    };
    continuity.continue_counter(vm, &reading, &mut stats);
    if let Some(exit) = batch.nic_exits.get(nic) {
        continuity.close(*exit, &reading, cumulative);
    }
    (Some(share), stats)
}

/// Both directions of something, as the guest sees them.
#[derive(Default)]
struct GuestView<T> {
    rx: T,
    tx: T,
}

/// The one place where the host's view becomes the guest's: what comes out of a TAP into the host is what the guest sent. A
/// macvtap is the guest's own port on the network below, so its directions are the guest's.
fn guest_view<T>(kind: NicKind, host_rx: T, host_tx: T) -> GuestView<T> {
    match kind {
        NicKind::Tap => GuestView { rx: host_tx, tx: host_rx },
        NicKind::Macvtap => GuestView { rx: host_rx, tx: host_tx },
    }
}

/// Whether the programs see what the guest has sent, and no more: tc egress of a macvtap also sees what is then dropped.
fn counts_what_was_sent(kind: NicKind) -> bool {
    kind == NicKind::Tap
}

/// What the programs count of what the guest has sent.
fn counted_tx(kind: NicKind, ebpf: Option<&EbpfReading>) -> Option<DirectionStats> {
    let ebpf = ebpf.filter(|_| counts_what_was_sent(kind))?;
    Some(guest_view(kind, ebpf.counters.ingress, ebpf.counters.egress).tx)
}

/// What the guest took is what the device delivered; what it sent is counted twice, by the device and by eBPF.
fn cumulative(
    kind: NicKind,
    account: &mut DeviceAccount,
    rx: FrameCounts,
    tx: FrameCounts,
    ebpf: Option<&EbpfReading>,
    drops: Option<DropCounts>,
) -> Totals {
    let counted_tx = counted_tx(kind, ebpf);
    Totals {
        rx: FrameCounts {
            bytes: account.rx_bytes.update(rx.bytes, None),
            packets: account.rx_packets.update(rx.packets, None),
            dropped: account.rx_dropped.update(rx.dropped, drops.map(device_dropped)),
            ..rx
        },
        tx: FrameCounts {
            bytes: account.tx_bytes.update(tx.bytes, counted_tx.map(|counted| counted.bytes)),
            packets: account.tx_packets.update(tx.packets, counted_tx.map(|counted| counted.packets)),
            ..tx
        },
        ebpf: ebpf.map(|ebpf| ebpf_stats(kind, ebpf, drops)),
    }
}

/// What waits for the guest, in packets and in bytes. What is gone was read before what was offered.
fn backlog(
    account: &mut DeviceAccount,
    cumulative: &Totals,
    device_is_read: bool,
) -> (Option<u64>, Option<u64>) {
    let Some(ebpf) = cumulative.ebpf.filter(|_| device_is_read) else { return (None, None) };
    let packets = gone(cumulative);
    let dropped = [ebpf.dropped_ring_full, ebpf.dropped_filter, ebpf.dropped_qdisc];
    let [ring_full, filter, qdisc] = dropped.map(|dropped| Some(dropped?.bytes));
    let bytes = add([cumulative.rx.bytes, ring_full, filter, qdisc]);
    let packets = ebpf.offered.zip(packets);
    let bytes = ebpf.offered.zip(bytes);
    (
        packets.map(|(offered, gone)| account.backlog_packets.update(offered.packets, gone)),
        bytes.map(|(offered, gone)| account.backlog_bytes.update(offered.bytes, gone)),
    )
}

/// Packets that the device has dropped, as the tracepoint has seen it.
fn device_dropped(drops: DropCounts) -> u64 {
    drops.ring_full.packets + drops.filter.packets
}

/// Packets that wait no more. What is not seen to be dropped in the queue is taken to wait there.
fn gone(cumulative: &Totals) -> Option<u64> {
    let qdisc = cumulative.ebpf.and_then(|ebpf| ebpf.dropped_qdisc).unwrap_or_default();
    add([cumulative.rx.packets, cumulative.rx.dropped, Some(qdisc.packets)])
}

/// Packets that the programs did not see, for the guest and from it.
fn gap(
    kind: NicKind,
    account: &mut DeviceAccount,
    cumulative: &Totals,
    tx: Option<u64>,
    ebpf: Option<&EbpfReading>,
    equation_holds: bool,
) -> GuestView<Option<u64>> {
    let offered = cumulative.ebpf.and_then(|ebpf| ebpf.offered).filter(|_| equation_holds);
    GuestView {
        rx: account.rx_gap.update(gone(cumulative), offered.map(|offered| offered.packets)),
        tx: account.tx_gap.update(tx, counted_tx(kind, ebpf).map(|counted| counted.packets)),
    }
}

/// Or nothing when one of them is not known.
fn add<const N: usize>(terms: [Option<u64>; N]) -> Option<u64> {
    terms.into_iter().try_fold(0_u64, |sum, term| sum.checked_add(term?))
}

/// How far the two counts of one thing are apart: what arrived between the two readings, and nothing on a quiet device.
fn mismatch(published: Option<u64>, device: Option<u64>) -> Option<i64> {
    i64::try_from(i128::from(device?) - i128::from(published?)).ok()
}

fn device_counts(kind: NicKind, stats: &TapStats) -> GuestView<FrameCounts> {
    let host_rx = FrameCounts {
        bytes: Some(stats.rx_bytes),
        packets: Some(stats.rx_packets),
        dropped: Some(stats.rx_dropped),
        errors: Some(stats.rx_errors),
    };
    let host_tx = FrameCounts {
        bytes: Some(stats.tx_bytes),
        packets: Some(stats.tx_packets),
        dropped: Some(stats.tx_dropped),
        errors: Some(stats.tx_errors),
    };
    guest_view(kind, host_rx, host_tx)
}

fn ebpf_stats(kind: NicKind, ebpf: &EbpfReading, drops: Option<DropCounts>) -> EbpfStats {
    let counted = guest_view(kind, ebpf.counters.ingress, ebpf.counters.egress);
    // Only what leaves the host by a TAP is cut behind the programs.
    let (cut, is_known) = match kind {
        NicKind::Tap => {
            (ebpf.counters.egress_segmented, ebpf.knows_segmentation || counted.rx.gso_packets == 0)
        }
        NicKind::Macvtap => (Traffic::default(), true),
    };
    let (packets, bytes) = (counted.rx.packets + cut.packets, counted.rx.bytes + cut.bytes);
    EbpfStats {
        rx: counted.rx,
        tx: counted.tx,
        offered: is_known.then_some(Traffic { packets, bytes }),
        dropped_ring_full: drops.map(|drops| drops.ring_full),
        dropped_filter: drops.map(|drops| drops.filter),
        dropped_qdisc: drops.map(|drops| drops.qdisc),
    }
}

#[cfg(test)]
mod tests;
