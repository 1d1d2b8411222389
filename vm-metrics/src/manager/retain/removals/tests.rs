//! Tests of removed VMs and interfaces, and of the readings that they share.

use super::super::tests::{device, info, stats};
use super::*;
use crate::model::{NicStats, TapReading};

/// The readings of interfaces with these devices.
fn batch(devices: &[Option<u32>]) -> Batch {
    let nic = |ifindex: &Option<u32>| NicReadings {
        device: ifindex.map(device),
        tap: ifindex.map(|_| TapReading::default()),
        ..NicReadings::default()
    };
    Batch { nics: devices.iter().map(nic).collect(), ..Batch::default() }
}

#[test]
fn removals_are_vms_and_interfaces() {
    let vms = VmSet { vms: vec![info("a", 1, &["t0", "t1"]), info("b", 2, &["t2"]), info("c", 3, &[])] };
    let mut of_a = stats("a", 1, "t0", Some(1));
    of_a.nics.push(NicStats { device: "t1".into(), ..NicStats::default() });
    let bare = |id| VmStats { nics: Vec::new(), ..stats(id, 3, "", None) };
    let before = LastTick { vms, stats: vec![of_a, stats("b", 2, "t2", None), bare("c")] };
    let mut now = VmSet { vms: vec![info("a", 1, &["t1"]), info("c", 4, &[])] };
    let removals = remove(&before, &mut now, &mut batch(&[None]));
    assert_eq!(removals.vms, [info("a", 1, &["t0"]), info("b", 2, &["t2"]), info("c", 3, &[])]);
}

#[test]
fn an_unreadable_interface_is_lost() {
    let vms = VmSet { vms: vec![info("a", 1, &["t0"])] };
    let before = LastTick { vms: vms.clone(), stats: vec![stats("a", 1, "t0", Some(1))] };
    let now = |before: &LastTick, readings| remove(before, &mut vms.clone(), &mut batch(&[readings]));
    assert_eq!(now(&before, None), vms);
    assert_eq!(now(&before, Some(3)), VmSet::default());
    assert_eq!(now(&before, Some(4)), vms, "another device has its name");
    let unread = NicStats { device: "t0".into(), ..NicStats::default() };
    let never = VmStats { nics: vec![unread], ..stats("a", 1, "t0", None) };
    let never = LastTick { vms: vms.clone(), stats: vec![never] };
    assert_eq!(now(&never, None), VmSet::default());
}

/// Another VM has the device now, or its VM has ended since it was listed.
#[test]
fn a_reading_is_shared_with_the_former_owner() {
    let before = LastTick {
        vms: VmSet { vms: vec![info("a", 1, &["t0"])] },
        stats: vec![stats("a", 1, "t0", Some(1))],
    };
    for (ended, left) in [(1, 1), (9, 0)] {
        let mut vms = VmSet { vms: vec![info("b", 9, &["t0"])] };
        let mut batch = Batch { ended: [ended].into(), ..batch(&[Some(3)]) };
        let removals = remove(&before, &mut vms, &mut batch);
        assert_eq!((removals.vms.len(), vms.vms.len()), (1, left));
        let last = batch.nics.last().unwrap();
        assert_eq!((last.device, last.tap), (Some(device(3)), Some(TapReading::default())));
        assert_eq!(batch.nics.len(), vms.vms.len() + 1);
    }
}
