//! Tests that the sums of a VM never fall while its process lives.

use super::*;

/// Ticks of one VM whose interfaces come and go.
#[derive(Default)]
struct Vm {
    continuity: Daemon,
    before: Vec<Nic>,
}

impl Vm {
    /// The sent bytes after a tick with these devices and counts. Devices of the tick before that are missing now are
    /// removed.
    fn sent(&mut self, devices: &[(&str, u32, u64)], last: &Readings) -> Option<u64> {
        let readings: Vec<_> =
            devices.iter().map(|(tap, ifindex, bytes)| (*tap, device(*ifindex, *bytes, 0))).collect();
        let nics: Vec<&str> = devices.iter().map(|(tap, ..)| *tap).collect();
        let (mut removals, now) = (vm(&[]), vm(&nics));
        removals.vms[0].nics =
            self.before.iter().filter(|nic| !now.vms[0].nics.contains(nic)).cloned().collect();
        self.before.clone_from(&now.vms[0].nics);
        let (present, _) = merge((&now, &batch(&readings, &[])), (&removals, last), &mut self.continuity);
        present[0].net_tx_bytes
    }
}

#[test]
fn a_removed_interface_stays_in_the_sum() {
    let mut vm = Vm::default();
    let none = Readings::default();
    assert_eq!(vm.sent(&[("t0", 3, 10), ("t1", 4, 50)], &none), Some(60));
    assert_eq!(vm.sent(&[("t0", 3, 11)], &batch(&[("t1", device(4, 55, 0))], &[])), Some(66));
    assert_eq!(vm.sent(&[("t0", 3, 12)], &none), Some(67));
    assert_eq!(vm.sent(&[], &none), Some(67), "no last words: what was published last");
    for _ in 0..100 {
        assert_eq!(vm.sent(&[], &none), Some(67));
    }
}

#[test]
fn a_remade_interface_is_one_more() {
    let mut vm = Vm::default();
    let none = Readings::default();
    assert_eq!(vm.sent(&[("t", 3, 50)], &none), Some(50));
    assert_eq!(vm.sent(&[("t", 4, 7)], &none), Some(57));
    assert_eq!(vm.sent(&[("t", 4, 1)], &none), Some(58), "with the same index, for it counts less");
}

#[test]
fn a_refound_interface_counts_once() {
    let mut vm = Vm::default();
    let none = Readings::default();
    assert_eq!(vm.sent(&[("t0", 3, 10), ("t1", 4, 50)], &none), Some(60));
    assert_eq!(vm.sent(&[("t0", 3, 10)], &none), Some(60));
    assert_eq!(vm.sent(&[("t0", 3, 10), ("t1", 4, 51)], &none), Some(61));
}

#[test]
fn an_unread_interface_leaves_no_sum() {
    let mut continuity = Daemon::default();
    let mut sent =
        |readings: &[_]| present(&vm(&["t0", "t1"]), &batch(readings, &[]), &mut continuity)[0].net_tx_bytes;
    assert_eq!(sent(&[("t0", device(3, 10, 0)), ("t1", device(4, 50, 0))]), Some(60));
    assert_eq!(sent(&[("t0", device(3, 10, 0))]), None);
    assert_eq!(sent(&[("t0", device(3, 10, 0)), ("t1", device(4, 52, 0))]), Some(62));
}

#[test]
fn a_moved_interface_counts_once() {
    let mut continuity = Daemon::default();
    let there = Nic { netns: Some(4_026_532_001), ..Nic::local("t") };
    let (here, mut moved) = (vm(&["t"]), vm(&[]));
    moved.vms[0].nics.push(there.clone());
    present(&here, &batch(&[("t", device(3, 50, 0))], &[]), &mut continuity);
    let mut last = batch(&[("t", device(3, 60, 0))], &[]);
    last.exits.insert(Nic::local("t"), DeviceExit::Moved { ifindex: 9 });
    let now = Readings { taps: [(there, device(9, 61, 0))].into(), ..Readings::default() };
    let (found, _) = merge((&moved, &now), (&here, &last), &mut continuity);
    assert_eq!(found[0].net_tx_bytes, Some(61));
}

#[test]
fn both_owners_sums_have_their_share() {
    let mut continuity = Daemon::default();
    let (nobody, none) = (VmSet::default(), Readings::default());
    let both =
        |nics: [&[&str]; 2]| VmSet { vms: [vm_named("a", nics[0]).vms, vm_named("b", nics[1]).vms].concat() };
    let now = |bytes| batch(&[("t", device(3, bytes, 0))], &[]);
    let sent = |stats: Vec<VmStats>| stats.iter().map(|vm| vm.net_tx_bytes).collect::<Vec<_>>();
    let (of_a, of_b) = (both([&["t"], &[]]), both([&[], &["t"]]));
    let mut tick = |present: (&VmSet, &Readings), removals: (&VmSet, &Readings)| {
        sent(merge(present, removals, &mut continuity).0)
    };
    assert_eq!(tick((&of_a, &now(100)), (&nobody, &none)), [Some(100), None]);
    assert_eq!(tick((&of_b, &now(130)), (&vm(&["t"]), &now(130))), [Some(130), Some(0)]);
    assert_eq!(tick((&of_b, &now(140)), (&nobody, &none)), [Some(130), Some(10)]);
    assert_eq!(tick((&of_a, &now(145)), (&vm_named("b", &["t"]), &now(145))), [Some(130), Some(15)]);
    assert_eq!(tick((&of_a, &now(150)), (&nobody, &none)), [Some(135), Some(15)]);
}

#[test]
fn another_process_begins_anew() {
    let mut continuity = Daemon::default();
    let mut sent = |pid, start, tap: &str, bytes| {
        let mut vms = vm(&[tap]);
        vms.vms[0].hypervisor_pid = Some(pid);
        let mut now = batch(&[(tap, device(bytes, bytes.into(), 0))], &[]);
        now.processes.insert(pid, ProcessReading { start_ticks: start, ..ProcessReading::default() });
        present(&vms, &now, &mut continuity)[0].net_tx_bytes
    };
    assert_eq!(sent(7, Some(1), "t0", 50), Some(50));
    assert_eq!(sent(7, None, "t1", 6), Some(56), "not known for a moment is no other process");
    assert_eq!(sent(7, Some(2), "t2", 4), Some(4));
    assert_eq!(sent(8, Some(2), "t3", 5), Some(5));
}
