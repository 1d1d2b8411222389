//! From what was read to what is published: pure but for the ledger, which remembers.

use vm_metrics_common::{Counters, DirectionCounters};

use super::ledger::{Account, Ledger, NicKey};
use crate::model::{
    AttachMode, Batch, EbpfReading, EbpfStats, FrameCounts, InstanceInfo, Nic, NicKind, NicSource, NicStats,
    PacketMix, TapReading, TapStats, VmSet, VmStats,
};

/// What is published of the VMs that are there, and the last words of those that are leaving.
pub(super) fn merge(
    present: (&VmSet, &Batch),
    leaving: (&VmSet, &Batch),
    ledger: &mut Ledger,
) -> (Vec<VmStats>, Vec<VmStats>) {
    ledger.begin_tick();
    let mut all =
        |(vms, batch): (&VmSet, &Batch)| vms.vms.iter().map(|vm| vm_stats(vm, batch, ledger)).collect();
    let stats = (all(present), all(leaving));
    ledger.end_tick();
    stats
}

fn vm_stats(vm: &InstanceInfo, batch: &Batch, ledger: &mut Ledger) -> VmStats {
    let process = vm.hypervisor_pid.and_then(|pid| batch.processes.get(&pid)).copied().unwrap_or_default();
    let nics: Vec<NicStats> = vm.nics.iter().map(|nic| nic_stats(nic, batch, ledger)).collect();
    VmStats {
        instance_id: vm.id.clone(),
        instance_name: vm.name.clone(),
        hypervisor: vm.hypervisor,
        hypervisor_pid: vm.hypervisor_pid,
        running: true,
        cpu_usec: process.cpu_usec,
        memory_rss_bytes: process.rss_bytes,
        memory_vms_bytes: process.vms_bytes,
        net_rx_bytes: sum(vm, &nics, |nic| nic.rx.bytes),
        net_tx_bytes: sum(vm, &nics, |nic| nic.tx.bytes),
        net_rx_packets: sum(vm, &nics, |nic| nic.rx.packets),
        net_tx_packets: sum(vm, &nics, |nic| nic.tx.packets),
        allocated_vcpus: vm.allocated_vcpus,
        allocated_memory_bytes: vm.allocated_memory_bytes,
        nics,
        uncounted: vm.uncounted.clone(),
    }
}

/// A sum over all NICs, or nothing: a sum over some of them would fall when one cannot be read.
fn sum(vm: &InstanceInfo, nics: &[NicStats], of: impl Fn(&NicStats) -> Option<u64>) -> Option<u64> {
    if nics.is_empty() || !vm.uncounted.is_empty() {
        return None;
    }
    nics.iter().map(of).try_fold(0_u64, |sum, value| sum.checked_add(value?))
}

fn nic_stats(nic: &Nic, batch: &Batch, ledger: &mut Ledger) -> NicStats {
    let ebpf = batch.ebpf.get(nic);
    // Numbers of two devices that had the name one after the other are not mixed: the later reading is eBPF's.
    let device = batch.taps.get(nic).filter(|device| ebpf.is_none_or(|ebpf| ebpf.ifindex == device.ifindex));
    let of_ebpf = ebpf.map(|ebpf| (ebpf.ifindex, ebpf.kind));
    let Some((ifindex, kind)) = of_ebpf.or(device.map(|device| (device.ifindex, device.kind))) else {
        return NicStats { device: nic.tap.clone(), netns: nic.netns, ..NicStats::default() };
    };
    let account = ledger.account(NicKey { ifindex, nic: nic.clone() });
    let counted = ebpf.filter(|_| counts_what_was_sent(kind));
    let (rx, tx) = frame_counts(kind, account, device, counted);
    NicStats {
        device: nic.tap.clone(),
        netns: nic.netns,
        ifindex: Some(ifindex),
        kind,
        source: counted.map(|_| NicSource::Ebpf).or(device.map(|device| device.source)).unwrap_or_default(),
        attach: ebpf.map_or(AttachMode::None, |ebpf| ebpf.attach),
        rx,
        tx,
        mismatch_bytes: counted
            .zip(device)
            .and_then(|(_, device)| mismatch(tx.bytes, device_counts(kind, &device.stats).tx.bytes)),
        ebpf: ebpf.map(|ebpf| ebpf_stats(kind, &ebpf.counters)),
    }
}

/// Both directions of something, as the guest sees them.
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

/// What the guest took is what the device delivered; what it sent is counted twice, by the device and by eBPF.
fn frame_counts(
    kind: NicKind,
    account: &mut Account,
    device: Option<&TapReading>,
    ebpf: Option<&EbpfReading>,
) -> (FrameCounts, FrameCounts) {
    let device = device.map(|device| device_counts(kind, &device.stats));
    let device_rx = device.as_ref().map(|device| device.rx).unwrap_or_default();
    let device_tx = device.as_ref().map(|device| device.tx).unwrap_or_default();
    let counted_tx = ebpf.map(|ebpf| guest_view(kind, ebpf.counters.ingress, ebpf.counters.egress).tx);
    let rx = FrameCounts {
        bytes: account.rx_bytes.update(device_rx.bytes, None),
        packets: account.rx_packets.update(device_rx.packets, None),
        ..device_rx
    };
    let tx = FrameCounts {
        bytes: account.tx_bytes.update(device_tx.bytes, counted_tx.map(|counted| counted.bytes)),
        packets: account.tx_packets.update(device_tx.packets, counted_tx.map(|counted| counted.packets)),
        ..device_tx
    };
    (rx, tx)
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

fn ebpf_stats(kind: NicKind, counters: &Counters) -> EbpfStats {
    let counted = guest_view(kind, counters.ingress, counters.egress);
    EbpfStats { rx: packet_mix(&counted.rx), tx: packet_mix(&counted.tx) }
}

fn packet_mix(counted: &DirectionCounters) -> PacketMix {
    PacketMix {
        bytes: counted.bytes,
        packets: counted.packets,
        wire_packets: counted.wire_packets,
        wire_bytes: counted.wire_bytes,
        gso_packets: counted.gso,
        ipv4: counted.ipv4,
        ipv6: counted.ipv6,
        arp: counted.arp,
        other_l3: counted.other_l3,
        tcp: counted.tcp,
        udp: counted.udp,
        icmp: counted.icmp,
        other_l4: counted.other_l4,
        unicast: counted.unicast,
        multicast: counted.multicast,
        broadcast: counted.broadcast,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ProcessReading, UncountedKind, UncountedNic};

    fn present(vms: &VmSet, batch: &Batch, ledger: &mut Ledger) -> Vec<VmStats> {
        merge((vms, batch), (&VmSet::default(), &Batch::default()), ledger).0
    }

    fn vm(nics: &[&str]) -> VmSet {
        let nics = nics.iter().map(|tap| Nic::local(*tap)).collect();
        VmSet {
            vms: vec![InstanceInfo {
                id: "a".into(),
                hypervisor_pid: Some(7),
                nics,
                ..InstanceInfo::default()
            }],
        }
    }

    fn device(ifindex: u32, rx_bytes: u64, tx_bytes: u64) -> TapReading {
        let stats = TapStats { rx_bytes, tx_bytes, ..TapStats::default() };
        TapReading { ifindex, source: NicSource::Netlink, kind: NicKind::Tap, stats }
    }

    fn ebpf(ifindex: u32, ingress_bytes: u64, egress_bytes: u64) -> EbpfReading {
        let mut counters = Counters::default();
        counters.ingress.bytes = ingress_bytes;
        counters.egress.bytes = egress_bytes;
        EbpfReading { ifindex, kind: NicKind::Tap, attach: AttachMode::Tcx, counters }
    }

    fn batch(taps: &[(&str, TapReading)], ebpf: &[(&str, EbpfReading)]) -> Batch {
        let nic = |tap: &str| Nic::local(tap);
        Batch {
            taps: taps.iter().map(|(tap, reading)| (nic(tap), *reading)).collect(),
            ebpf: ebpf.iter().map(|(tap, reading)| (nic(tap), *reading)).collect(),
            ..Batch::default()
        }
    }

    #[test]
    fn the_guest_receives_what_the_device_transmits() {
        let batch = batch(&[("t", device(3, 10, 2000))], &[("t", ebpf(3, 10, 2500))]);
        let stats = &present(&vm(&["t"]), &batch, &mut Ledger::default())[0];
        assert_eq!((stats.net_rx_bytes, stats.net_tx_bytes), (Some(2000), Some(10)));
        let ebpf = stats.nics[0].ebpf.expect("counted by eBPF");
        assert_eq!((ebpf.rx.bytes, ebpf.tx.bytes), (2500, 10));
    }

    #[test]
    fn the_directions_of_a_macvtap_are_the_guests() {
        let kind = NicKind::Macvtap;
        let device = TapReading { kind, ..device(3, 10, 2000) };
        let ebpf = EbpfReading { kind, ..ebpf(3, 10, 2600) };
        let batch = batch(&[("t", device)], &[("t", ebpf)]);
        let nic = &present(&vm(&["t"]), &batch, &mut Ledger::default())[0].nics[0];
        assert_eq!((nic.rx.bytes, nic.tx.bytes), (Some(10), Some(2000)));
        assert_eq!(nic.ebpf.map(|ebpf| (ebpf.rx.bytes, ebpf.tx.bytes)), Some((10, 2600)));
        assert_eq!(
            (nic.source, nic.mismatch_bytes),
            (NicSource::Netlink, None),
            "what was sent is the device's word"
        );
    }

    #[test]
    fn what_is_not_measured_is_absent() {
        let stats = &present(&vm(&["t"]), &Batch::default(), &mut Ledger::default())[0];
        assert_eq!(stats.cpu_usec, None);
        assert_eq!(stats.memory_rss_bytes, None);
        assert_eq!(stats.net_rx_bytes, None);
        assert_eq!(stats.nics[0].source, NicSource::None);
        assert_eq!(stats.nics[0].rx, FrameCounts::default());
    }

    #[test]
    fn a_sum_over_some_nics_is_no_sum() {
        let one_of_two = batch(&[("t0", device(3, 1, 2))], &[]);
        let stats = &present(&vm(&["t0", "t1"]), &one_of_two, &mut Ledger::default())[0];
        assert_eq!(stats.net_rx_bytes, None);
        assert_eq!(stats.nics[0].rx.bytes, Some(2));
    }

    #[test]
    fn nor_is_one_without_a_nic_that_cannot_be_counted() {
        let mut vms = vm(&["t0"]);
        let uncounted = UncountedNic { kind: UncountedKind::Vfio, name: "0000:03:00.0".into() };
        vms.vms[0].uncounted.push(uncounted.clone());
        let stats = &present(&vms, &batch(&[("t0", device(3, 1, 2))], &[]), &mut Ledger::default())[0];
        assert_eq!((stats.net_rx_bytes, stats.net_tx_packets), (None, None));
        assert_eq!((stats.nics[0].rx.bytes, &stats.uncounted), (Some(2), &vec![uncounted]));
    }

    #[test]
    fn a_device_under_a_used_name_begins_anew() {
        let mut ledger = Ledger::default();
        present(&vm(&["t"]), &batch(&[("t", device(3, 500, 500))], &[]), &mut ledger);
        let stats = &present(&vm(&["t"]), &batch(&[("t", device(4, 1, 2))], &[]), &mut ledger)[0];
        assert_eq!((stats.net_rx_bytes, stats.net_tx_bytes), (Some(2), Some(1)));
    }

    #[test]
    fn readings_of_two_devices_are_not_mixed() {
        let batch = batch(&[("t", device(3, 500, 500))], &[("t", ebpf(4, 7, 8))]);
        let stats = &present(&vm(&["t"]), &batch, &mut Ledger::default())[0];
        assert_eq!(stats.nics[0].ifindex, Some(4));
        assert_eq!(stats.nics[0].tx.bytes, Some(7));
        assert_eq!(stats.nics[0].rx.bytes, None);
    }

    #[test]
    fn the_two_counts_are_compared() {
        let mut ledger = Ledger::default();
        let mut mismatch = |batch: &Batch| present(&vm(&["t"]), batch, &mut ledger)[0].nics[0].mismatch_bytes;
        assert_eq!(mismatch(&batch(&[("t", device(3, 1000, 0))], &[])), None, "one count only");
        assert_eq!(mismatch(&batch(&[("t", device(3, 1000, 0))], &[("t", ebpf(3, 0, 0))])), Some(0));
        assert_eq!(mismatch(&batch(&[("t", device(3, 1000, 0))], &[("t", ebpf(3, 60, 0))])), Some(-60));
        assert_eq!(mismatch(&batch(&[("t", device(3, 1060, 0))], &[("t", ebpf(3, 60, 0))])), Some(0));
    }

    #[test]
    fn the_switch_to_ebpf_and_back_does_not_show() {
        let mut ledger = Ledger::default();
        let mut tx = |batch: &Batch| present(&vm(&["t"]), batch, &mut ledger)[0].net_tx_bytes;
        assert_eq!(tx(&batch(&[("t", device(3, 1000, 0))], &[])), Some(1000));
        assert_eq!(tx(&batch(&[("t", device(3, 1100, 0))], &[("t", ebpf(3, 100, 0))])), Some(1100));
        assert_eq!(tx(&batch(&[("t", device(3, 1200, 0))], &[("t", ebpf(3, 250, 0))])), Some(1250));
        assert_eq!(tx(&batch(&[("t", device(3, 1240, 0))], &[])), Some(1250));
        assert_eq!(tx(&batch(&[("t", device(3, 1300, 0))], &[])), Some(1300));
    }

    #[test]
    fn the_switch_from_netlink_to_sysfs_and_back_does_not_show() {
        let mut ledger = Ledger::default();
        for (source, bytes) in [
            (NicSource::Netlink, 100),
            (NicSource::Sysfs, 150),
            (NicSource::Sysfs, 150),
            (NicSource::Netlink, 170),
        ] {
            let reading = TapReading { source, ..device(3, bytes, 2 * bytes) };
            let nic = present(&vm(&["t"]), &batch(&[("t", reading)], &[]), &mut ledger)[0].nics.remove(0);
            assert_eq!((nic.source, nic.tx.bytes, nic.rx.bytes), (source, Some(bytes), Some(2 * bytes)));
        }
    }

    #[test]
    fn process_numbers_belong_to_the_process() {
        let mut batch = Batch::default();
        batch
            .processes
            .insert(7, ProcessReading { cpu_usec: Some(5), rss_bytes: Some(6), ..ProcessReading::default() });
        batch.processes.insert(8, ProcessReading { cpu_usec: Some(9), ..ProcessReading::default() });
        let stats = &present(&vm(&[]), &batch, &mut Ledger::default())[0];
        assert_eq!((stats.cpu_usec, stats.memory_rss_bytes, stats.net_rx_bytes), (Some(5), Some(6), None));
    }

    #[test]
    fn last_words_go_on_from_what_was_published() {
        let mut ledger = Ledger::default();
        let now = batch(&[("t", device(3, 1000, 50))], &[("t", ebpf(3, 100, 0))]);
        present(&vm(&["t"]), &now, &mut ledger);
        let last = batch(&[], &[("t", ebpf(3, 150, 0))]);
        let (_, leaving) = merge((&VmSet::default(), &Batch::default()), (&vm(&["t"]), &last), &mut ledger);
        assert_eq!(leaving[0].nics[0].tx.bytes, Some(1050));
        assert_eq!(leaving[0].nics[0].rx.bytes, None);
    }
}
