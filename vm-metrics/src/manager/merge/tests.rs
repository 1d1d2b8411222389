//! Tests of the merge, one tick after the other.

mod drops;
mod readings;
mod series;
mod sums;

use std::time::SystemTime;

use super::*;
use crate::manager::continuity::tests::daemon::Daemon;
use crate::model::{
    DeviceExit, FrameCounts, Nic, NicKind, NicSource, ProcessReading, ProcessStats, UnmonitoredKind,
    UnmonitoredNic, unix_seconds,
};
use readings::{Readings, Tap, batch, device, ebpf};

/// One tick from its begin to its end.
fn merge(
    (vms, readings): (&VmSet, &Readings),
    (removals, last): (&VmSet, &Readings),
    daemon: &mut Daemon,
) -> (Vec<VmStats>, Vec<VmStats>) {
    let exits = daemon.begin_tick(&[]);
    let nics = [last.of(removals, daemon), readings.of(vms, daemon)];
    let nics = nics.into_iter().rev().flatten().collect();
    let batch = Batch { nics, exits, processes: readings.processes.clone(), ..Batch::default() };
    let now = unix_seconds(SystemTime::now());
    let mut tick = daemon.continuity.begin_tick(now, vms, removals, &batch);
    let merged = super::merge(vms, removals, &batch, &mut tick);
    tick.end().save();
    merged
}

fn present(vms: &VmSet, batch: &Readings, continuity: &mut Daemon) -> Vec<VmStats> {
    merge((vms, batch), (&VmSet::default(), &Readings::default()), continuity).0
}

fn vm(nics: &[&str]) -> VmSet {
    vm_named("a", nics)
}

fn vm_named(id: &str, nics: &[&str]) -> VmSet {
    let nics = nics.iter().map(|tap| Nic::local(*tap)).collect();
    VmSet {
        vms: vec![InstanceInfo { id: id.into(), hypervisor_pid: Some(7), nics, ..InstanceInfo::default() }],
    }
}

#[test]
fn the_guest_receives_what_the_device_transmits() {
    let batch = batch(&[("t", device(3, 10, 2000))], &[("t", ebpf(3, 10, 2500))]);
    let stats = &present(&vm(&["t"]), &batch, &mut Daemon::default())[0];
    assert_eq!((stats.net_rx_bytes, stats.net_tx_bytes), (Some(2000), Some(10)));
    let ebpf = stats.nics[0].ebpf.expect("counted by eBPF");
    assert_eq!((ebpf.rx.bytes, ebpf.tx.bytes), (2500, 10));
}

#[test]
fn the_directions_of_a_macvtap_are_the_guests() {
    let kind = NicKind::Macvtap;
    let device = Tap { kind, ..device(3, 10, 2000) };
    let (_, _, ebpf) = ebpf(3, 10, 2600);
    let batch = batch(&[("t", device)], &[("t", (3, kind, ebpf))]);
    let nic = &present(&vm(&["t"]), &batch, &mut Daemon::default())[0].nics[0];
    assert_eq!((nic.rx.bytes, nic.tx.bytes), (Some(10), Some(2000)));
    assert_eq!(nic.ebpf.map(|ebpf| (ebpf.rx.bytes, ebpf.tx.bytes)), Some((10, 2600)));
    assert_eq!(
        (nic.source, nic.mismatch_bytes),
        (NicSource::Netlink, None),
        "what was sent is the device's word"
    );
}

#[test]
fn unmeasured_numbers_are_absent() {
    let stats = &present(&vm(&["t"]), &Readings::default(), &mut Daemon::default())[0];
    assert_eq!(stats.process.cpu_usec, None);
    assert_eq!(stats.process.memory_rss_bytes, None);
    assert_eq!(stats.net_rx_bytes, None);
    assert_eq!(stats.nics[0].source, NicSource::None);
    assert_eq!(stats.nics[0].rx, FrameCounts::default());
}

#[test]
fn a_sum_over_some_nics_is_no_sum() {
    let one_of_two = batch(&[("t0", device(3, 1, 2))], &[]);
    let stats = &present(&vm(&["t0", "t1"]), &one_of_two, &mut Daemon::default())[0];
    assert_eq!(stats.net_rx_bytes, None);
    assert_eq!(stats.nics[0].rx.bytes, Some(2));
}

#[test]
fn an_unmonitored_nic_leaves_no_sum() {
    let mut vms = vm(&["t0"]);
    let unmonitored = UnmonitoredNic { kind: UnmonitoredKind::Vfio, name: "0000:03:00.0".into() };
    vms.vms[0].unmonitored.push(unmonitored.clone());
    let stats = &present(&vms, &batch(&[("t0", device(3, 1, 2))], &[]), &mut Daemon::default())[0];
    assert_eq!((stats.net_rx_bytes, stats.net_tx_packets), (None, None));
    assert_eq!((stats.nics[0].rx.bytes, &stats.unmonitored), (Some(2), &vec![unmonitored]));
}

#[test]
fn left_out_nics_leave_no_sum() {
    let mut vms = vm(&["t0"]);
    vms.vms[0].has_more_nics = true;
    let stats = &present(&vms, &batch(&[("t0", device(3, 1, 2))], &[]), &mut Daemon::default())[0];
    assert_eq!((stats.net_rx_bytes, stats.net_tx_packets), (None, None));
    assert_eq!(stats.nics[0].rx.bytes, Some(2));
}

#[test]
fn a_device_under_a_used_name_begins_anew() {
    let mut continuity = Daemon::default();
    present(&vm(&["t"]), &batch(&[("t", device(3, 500, 500))], &[]), &mut continuity);
    let stats = &present(&vm(&["t"]), &batch(&[("t", device(4, 1, 2))], &[]), &mut continuity)[0];
    assert_eq!((stats.nics[0].rx.bytes, stats.nics[0].tx.bytes), (Some(2), Some(1)));
}

#[test]
fn the_two_counts_are_compared() {
    let mut continuity = Daemon::default();
    let mut mismatch =
        |batch: &Readings| present(&vm(&["t"]), batch, &mut continuity)[0].nics[0].mismatch_bytes;
    assert_eq!(mismatch(&batch(&[("t", device(3, 1000, 0))], &[])), None, "one count only");
    assert_eq!(mismatch(&batch(&[("t", device(3, 1000, 0))], &[("t", ebpf(3, 0, 0))])), Some(0));
    assert_eq!(mismatch(&batch(&[("t", device(3, 1000, 0))], &[("t", ebpf(3, 60, 0))])), Some(-60));
    assert_eq!(mismatch(&batch(&[("t", device(3, 1060, 0))], &[("t", ebpf(3, 60, 0))])), Some(0));
}

#[test]
fn a_switch_to_ebpf_does_not_show() {
    let mut continuity = Daemon::default();
    let mut tx = |batch: &Readings| present(&vm(&["t"]), batch, &mut continuity)[0].net_tx_bytes;
    assert_eq!(tx(&batch(&[("t", device(3, 1000, 0))], &[])), Some(1000));
    assert_eq!(tx(&batch(&[("t", device(3, 1100, 0))], &[("t", ebpf(3, 100, 0))])), Some(1100));
    assert_eq!(tx(&batch(&[("t", device(3, 1200, 0))], &[("t", ebpf(3, 250, 0))])), Some(1250));
    assert_eq!(tx(&batch(&[("t", device(3, 1240, 0))], &[])), Some(1250));
    assert_eq!(tx(&batch(&[("t", device(3, 1300, 0))], &[])), Some(1300));
}

#[test]
fn a_switch_to_sysfs_does_not_show() {
    let mut continuity = Daemon::default();
    for (source, bytes) in [
        (NicSource::Netlink, 100),
        (NicSource::Sysfs, 150),
        (NicSource::Sysfs, 150),
        (NicSource::Netlink, 170),
    ] {
        let mut reading = device(3, bytes, 2 * bytes);
        reading.reading.source = source;
        let nic = present(&vm(&["t"]), &batch(&[("t", reading)], &[]), &mut continuity)[0].nics.remove(0);
        assert_eq!((nic.source, nic.tx.bytes, nic.rx.bytes), (source, Some(bytes), Some(2 * bytes)));
    }
}

/// The bytes sent of each present VM, and of each removed one.
fn sent(
    continuity: &mut Daemon,
    present: &VmSet,
    removals: &VmSet,
    batch: &Readings,
) -> [Vec<Option<u64>>; 2] {
    let of = |stats: Vec<VmStats>| stats.iter().map(|vm| vm.nics[0].tx.bytes).collect();
    let (present, removals) = merge((present, batch), (removals, batch), continuity);
    [of(present), of(removals)]
}

#[test]
fn the_next_owner_inherits_nothing() {
    let mut continuity = Daemon::default();
    let (a, b, nobody) = (vm(&["t"]), vm_named("b", &["t"]), VmSet::default());
    let now =
        |device_bytes, counted| batch(&[("t", device(3, device_bytes, 0))], &[("t", ebpf(3, counted, 0))]);
    assert_eq!(sent(&mut continuity, &a, &nobody, &now(1000, 400)), [vec![Some(1000)], vec![]]);
    assert_eq!(sent(&mut continuity, &b, &a, &now(1300, 700)), [vec![Some(0)], vec![Some(1300)]]);
    assert_eq!(sent(&mut continuity, &b, &nobody, &now(1350, 750)), [vec![Some(50)], vec![]]);
    // It has no VM for a while; bytes of that time belong to the next owner.
    assert_eq!(sent(&mut continuity, &nobody, &b, &now(1360, 760)), [vec![], vec![Some(60)]]);
    assert_eq!(sent(&mut continuity, &nobody, &nobody, &Readings::default()), [vec![], vec![]]);
    assert_eq!(sent(&mut continuity, &a, &nobody, &now(1367, 767)), [vec![Some(7)], vec![]]);
    let stats = &present(&a, &now(1368, 768), &mut continuity)[0];
    assert_eq!((stats.nics[0].ebpf.unwrap().tx.bytes, stats.nics[0].mismatch_bytes), (8, Some(0)));
}

#[test]
fn a_restarted_vm_goes_on_with_its_device() {
    let mut continuity = Daemon::default();
    let (vm, nobody) = (vm(&["t"]), VmSet::default());
    let now = |bytes| batch(&[("t", device(3, bytes, 0))], &[]);
    sent(&mut continuity, &vm, &nobody, &now(1000));
    sent(&mut continuity, &nobody, &vm, &now(1100));
    sent(&mut continuity, &nobody, &nobody, &Readings::default());
    assert_eq!(sent(&mut continuity, &vm, &nobody, &now(1200))[0], [Some(1200)]);
}

#[test]
fn a_device_that_counts_less_is_another() {
    let mut continuity = Daemon::default();
    let now = |bytes| batch(&[("t", device(3, bytes, 0))], &[]);
    present(&vm(&["t"]), &now(1000), &mut continuity);
    assert_eq!(present(&vm(&["t"]), &now(10), &mut continuity)[0].nics[0].tx.bytes, Some(10));
}

#[test]
fn new_programs_count_from_0_for_later_owners() {
    let mut continuity = Daemon::default();
    let now = |counted| {
        let mut reading = ebpf(3, counted, 0);
        reading.2.counters.ingress.packets = counted;
        batch(&[("t", device(3, 5000, 0))], &[("t", reading)])
    };
    present(&vm(&["t"]), &now(400), &mut continuity);
    let mut counted = |batch: &Readings| {
        present(&vm_named("b", &["t"]), batch, &mut continuity)[0].nics[0].ebpf.unwrap().tx.bytes
    };
    assert_eq!(counted(&now(450)), 50);
    assert_eq!(counted(&now(20)), 20);
    assert_eq!(counted(&now(30)), 30);
}

#[test]
fn process_numbers_belong_to_the_process() {
    let mut batch = Batch::default();
    let stats = |cpu_usec| ProcessStats {
        cpu_usec: Some(cpu_usec),
        memory_rss_bytes: Some(6),
        ..ProcessStats::default()
    };
    batch.add_process(7, stats(5));
    batch.add_process(8, stats(9));
    let batch = Readings { processes: batch.processes, ..Readings::default() };
    let stats = &present(&vm(&[]), &batch, &mut Daemon::default())[0];
    assert_eq!(
        (stats.process.cpu_usec, stats.process.memory_rss_bytes, stats.net_rx_bytes),
        (Some(5), Some(6), None)
    );
}

#[test]
fn final_counters_go_on_from_published_ones() {
    let mut continuity = Daemon::default();
    let now = batch(&[("t", device(3, 1000, 50))], &[("t", ebpf(3, 100, 0))]);
    present(&vm(&["t"]), &now, &mut continuity);
    let last = batch(&[], &[("t", ebpf(3, 150, 0))]);
    let (_, removals) =
        merge((&VmSet::default(), &Readings::default()), (&vm(&["t"]), &last), &mut continuity);
    assert_eq!(removals[0].nics[0].tx.bytes, Some(1050));
    assert_eq!(removals[0].nics[0].rx.bytes, None);
}
