//! Tests of removals, and of the last numbers of terminated VMs.

use super::*;
use crate::exporters::families::{self, Family};
use crate::exporters::metrics::Kind;
use crate::exporters::metrics::tests::full;
use crate::model::{
    Device, DeviceId, FrameCounts, InstanceInfo, Nic, ProcessStats, Snapshot, VcpuStats, VmState,
};

pub(super) fn info(id: &str, pid: u32, taps: &[&str]) -> InstanceInfo {
    let nics = taps.iter().map(|tap| Nic::local(*tap)).collect();
    InstanceInfo { id: id.into(), hypervisor_pid: Some(pid), nics, ..InstanceInfo::default() }
}

/// A device with its index as its generation.
pub(super) fn device(ifindex: u32) -> Device {
    let id = DeviceId { ifindex, generation: ifindex.into(), ..DeviceId::default() };
    Device { id, ..Device::default() }
}

pub(super) fn stats(id: &str, pid: u32, tap: &str, tx_bytes: Option<u64>) -> VmStats {
    let tx = FrameCounts { bytes: tx_bytes, ..FrameCounts::default() };
    let found = Some(device(3));
    let nic = NicStats { device: tap.into(), ifindex: Some(3), tx, found, ..NicStats::default() };
    VmStats {
        instance_id: id.into(),
        hypervisor_pid: Some(pid),
        running: true,
        process: ProcessStats { memory_rss_bytes: Some(5), ..ProcessStats::default() },
        state: Some(VmState::Running),
        nics: vec![nic],
        ..VmStats::default()
    }
}

fn kept_for_ten_seconds() -> TerminatedVms {
    TerminatedVms::new(Duration::from_secs(10), Trust::default())
}

/// Of VMs of an unknown user.
fn add(terminated: &mut TerminatedVms, final_stats: Vec<VmStats>, before: &[VmStats], now: Instant) {
    let vms =
        final_stats.iter().map(|vm| info(&vm.instance_id, vm.hypervisor_pid.unwrap_or(0), &[])).collect();
    let overuse = terminated.add(&VmSet { vms }, final_stats, before, now);
    assert!(overuse.is_empty());
}

#[test]
fn last_numbers_are_shown_during_retention() {
    let start = Instant::now();
    let mut terminated = kept_for_ten_seconds();
    let before = VmStats { net_tx_bytes: Some(9), ..stats("a", 1, "t0", Some(7)) };
    add(&mut terminated, vec![stats("a", 1, "t0", None)], &[before], start);
    let mut present = Vec::new();
    terminated.show(&mut present, &VmSet::default());
    let shown = (present[0].nics[0].tx.bytes, present[0].net_tx_bytes);
    assert_eq!(shown, (Some(7), Some(9)), "as it was before");
    let vm = &present[0];
    assert_eq!((vm.running, vm.process.memory_rss_bytes, vm.state), (false, None, None));
    add(&mut terminated, Vec::new(), &[], start + Duration::from_secs(11));
    let mut present = Vec::new();
    terminated.show(&mut present, &VmSet::default());
    assert_eq!(present, []);
}

/// A new counter of a VM must be kept, too.
#[test]
fn every_counter_outlives_its_process() {
    let before = full().vms.remove(0);
    let nic = NicStats { device: "tap0".into(), netns: before.nics[0].netns, ..NicStats::default() };
    let nics = vec![nic];
    let last = VmStats { instance_id: "a".into(), instance_name: "b".into(), nics, ..VmStats::default() };
    let vm = settled(last, Some(&before));
    let ended = Snapshot { vms: vec![vm], ..full() };
    let counters = |snapshot| {
        let is_counter =
            |family: &Family| family.metric.kind == Kind::Counter && family.metric.has_label("instance_id");
        families::of_snapshot(snapshot).into_iter().filter(is_counter)
    };
    for (ended, full) in counters(&ended).zip(counters(&full())) {
        assert_eq!(ended.samples, full.samples, "{}", full.metric.name);
    }
}

#[test]
fn final_counters_replace_former_ones() {
    let mut terminated = kept_for_ten_seconds();
    let before = [stats("a", 1, "t0", Some(7))];
    add(&mut terminated, vec![stats("a", 1, "t0", Some(9))], &before, Instant::now());
    let mut present = Vec::new();
    terminated.show(&mut present, &VmSet::default());
    assert_eq!(present[0].nics[0].tx.bytes, Some(9));
}

#[test]
fn a_renamed_device_is_shown_once() {
    let mut terminated = kept_for_ten_seconds();
    add(&mut terminated, vec![stats("a", 1, "old", Some(7))], &[], Instant::now());
    let mut present = vec![stats("a", 1, "new", Some(8))];
    terminated.show(&mut present, &VmSet::default());
    assert_eq!(present[0].nics.len(), 1);
    let mut present = vec![stats("b", 2, "old", Some(8))];
    terminated.show(&mut present, &VmSet::default());
    assert_eq!(present[1].nics[0].tx.bytes, Some(7), "another VM has it now: this was its part");
}

#[test]
fn a_renamed_device_hides_those_before_it() {
    let mut terminated = kept_for_ten_seconds();
    let mut before = stats("a", 1, "old", Some(5));
    (before.nics[0].ifindex, before.nics[0].found) = (Some(2), Some(device(2)));
    for words in [before, stats("a", 1, "old", Some(7))] {
        add(&mut terminated, vec![words], &[], Instant::now());
    }
    let mut present = vec![stats("a", 1, "new", Some(8))];
    terminated.show(&mut present, &VmSet::default());
    assert_eq!(present[0].nics.len(), 1);
}

#[test]
fn a_process_is_shown_under_one_id() {
    let process = |id, start_time, cpu_usec| VmStats {
        start_time,
        process: ProcessStats {
            cpu_usec: Some(cpu_usec),
            disk_read_bytes: Some(1),
            ..ProcessStats::default()
        },
        vcpus: vec![VcpuStats::default()],
        ..stats(id, 1, "t0", Some(7))
    };
    let mut terminated = kept_for_ten_seconds();
    add(&mut terminated, vec![process("a", Some(5.0), 30)], &[], Instant::now());
    let shown = |now: VmStats| {
        let mut present = vec![now];
        terminated.show(&mut present, &VmSet::default());
        let a = present.remove(1);
        (a.process.cpu_usec, a.process.disk_read_bytes, a.vcpus.len(), a.start_time, a.nics[0].tx.bytes)
    };
    assert_eq!(shown(process("b", Some(5.0), 31)), (None, None, 0, None, Some(7)), "it has another id now");
    assert_eq!(
        shown(process("b", None, 31)),
        (None, None, 0, None, Some(7)),
        "and no reason to think otherwise"
    );
    let another = (Some(30), Some(1), 1, Some(5.0), Some(7));
    assert_eq!(shown(process("b", Some(6.0), 2)), another, "the pid is used again");
}

#[test]
fn a_removed_interface_is_shown_with_its_vm() {
    let mut terminated = kept_for_ten_seconds();
    add(&mut terminated, vec![stats("a", 1, "t0", Some(7))], &[], Instant::now());
    let bare = VmStats { nics: Vec::new(), ..stats("a", 1, "t0", None) };
    add(&mut terminated, vec![bare], &[], Instant::now());
    let mut present = Vec::new();
    terminated.show(&mut present, &VmSet::default());
    assert_eq!(present.len(), 1);
    assert_eq!(present[0].nics[0].tx.bytes, Some(7));
}

/// It waits for the holder of its TAP, which goes before anybody reads it.
#[test]
fn a_vm_without_its_process_keeps_final_counters() {
    let orphan = || {
        let unread = NicStats { device: "t0".into(), ..NicStats::default() };
        VmStats { hypervisor_pid: None, nics: vec![unread], ..stats("a", 0, "t0", None) }
    };
    let mut terminated = kept_for_ten_seconds();
    add(&mut terminated, vec![stats("a", 1, "t9", Some(5))], &[], Instant::now());
    let mut last = stats("a", 2, "t0", Some(7));
    last.process.cpu_usec = Some(9);
    add(&mut terminated, vec![last], &[], Instant::now());
    let mut present = vec![orphan()];
    terminated.show(&mut present, &VmSet::default());
    assert_eq!(present[0].nics[0].tx.bytes, Some(7));
    add(&mut terminated, vec![orphan()], &[], Instant::now());
    let mut present = Vec::new();
    terminated.show(&mut present, &VmSet::default());
    assert_eq!((present.len(), present[0].nics.len()), (1, 1), "nothing of an earlier process");
    assert_eq!((present[0].nics[0].tx.bytes, present[0].process.cpu_usec), (Some(7), Some(9)));
}

#[test]
fn a_successor_is_shown_instead() {
    let mut terminated = kept_for_ten_seconds();
    let mut lost_nic = stats("b", 5, "t1", Some(3));
    lost_nic.nics[0].device = "t9".into();
    (lost_nic.nics[0].ifindex, lost_nic.nics[0].found) = (Some(9), Some(device(9)));
    add(&mut terminated, vec![stats("a", 1, "t0", Some(7)), lost_nic], &[], Instant::now());
    let mut present = vec![stats("a", 2, "t0", Some(1)), stats("b", 5, "t1", Some(4))];
    terminated.show(&mut present, &VmSet::default());
    assert_eq!(present.len(), 2);
    assert_eq!(present[0].nics.len(), 1, "another process: nothing of the old one");
    let of_b: Vec<_> = present[1].nics.iter().map(|nic| nic.device.as_str()).collect();
    assert_eq!(of_b, ["t1", "t9"]);
}

fn of_user(uid: u32, vm: InstanceInfo) -> InstanceInfo {
    InstanceInfo { uid: Some(uid), ..vm }
}

/// Fakes with the id of a VM are started while it ends.
#[test]
fn another_user_does_not_hide_terminated_vms() {
    let shown = |departed_uid, uid| {
        let mut terminated = kept_for_ten_seconds();
        let victim = VmSet { vms: vec![of_user(departed_uid, info("a", 1, &[]))] };
        terminated.add(&victim, vec![stats("a", 1, "t0", Some(7))], &[], Instant::now());
        let vms = VmSet { vms: vec![of_user(uid, info("a", 2, &[]))] };
        let mut present = vec![stats("a", 2, "t0", Some(1))];
        terminated.show(&mut present, &vms);
        present.sort_by_key(|vm| vm.hypervisor_pid);
        present.iter().map(|vm| (vm.instance_id.clone(), vm.nics[0].tx.bytes)).collect::<Vec<_>>()
    };
    let both = [("a".to_owned(), Some(7)), ("a-2".to_owned(), Some(1))];
    assert_eq!(shown(0, 1000), both);
    assert_eq!(shown(1001, 1000), both);
    let successor = [("a".to_owned(), Some(1))];
    assert_eq!(shown(1000, 1000), successor);
    assert_eq!(shown(1000, 0), successor, "root's word counts");
}

#[test]
fn a_fake_does_not_hide_a_vm() {
    let mut terminated = kept_for_ten_seconds();
    for (uid, pid, bytes) in [(0, 1, 7), (1000, 2, 1)] {
        let vms = VmSet { vms: vec![of_user(uid, info("a", pid, &[]))] };
        terminated.add(&vms, vec![stats("a", pid, "t0", Some(bytes))], &[], Instant::now());
    }
    let mut present = Vec::new();
    terminated.show(&mut present, &VmSet::default());
    assert_eq!(present.len(), 1);
    assert_eq!(present[0].nics[0].tx.bytes, Some(7));
}

#[test]
fn a_stranger_displaces_no_other_vms() {
    let mut terminated = kept_for_ten_seconds();
    let now = Instant::now();
    let mut end = |uid, pid: u32| {
        let id = format!("{uid}-{pid}");
        let vms = VmSet { vms: vec![of_user(uid, info(&id, pid, &[]))] };
        let last = stats(&id, pid, "t0", Some(pid.into()));
        terminated.add(&vms, vec![last], &[], now).into_list().iter().map(|over| over.count).sum::<u64>()
    };
    assert_eq!(end(1, 1) + end(0, 2), 0);
    let most = u32::try_from(COUNT.others).unwrap();
    let lost: u64 = (0..most + 100).map(|pid| end(7, 10 + pid)).sum();
    assert_eq!(lost, 101);
    let mut present = Vec::new();
    terminated.show(&mut present, &VmSet::default());
    assert_eq!(present.len(), COUNT.others as usize + 1);
    let is_there = |id: &str| present.iter().any(|vm| vm.instance_id == id);
    assert!(is_there("1-1") && is_there("0-2"));
    assert!(is_there(&format!("7-{}", 10 + most + 99)), "who talked most stays");
    assert!(!is_there("7-10"));
}
