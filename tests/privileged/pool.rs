//! Pooled TAPs: renamed or moved, the next VM starts at zero.
//!
//! Each test runs isolated, because a child process of another test may hold a dropped TAP for a moment.

use std::process::Command;

use vm_metrics::Manager;
use vm_metrics::NicStats;
use vm_metrics::{InstanceInfo, Nic};
use vm_metrics_testkit::child::ChildProcess;
use vm_metrics_testkit::link::ip;
use vm_metrics_testkit::netns::{NetNs, enter_of};
use vm_metrics_testkit::tap::{Tap, TapOptions};

use crate::isolation::isolated;
use crate::lab::{manager_with, nics};

/// More ticks than between two checks for deleted devices.
const LONG: usize = 100;

const TABLES: &str = "retention = \"0s\"\n[readers.tap_ebpf]\npin = false\n";
const WITHOUT_EBPF: &str = "retention = \"0s\"\n[readers.tap_ebpf]\nenabled = false\n";

fn vm(id: &str, pid: Option<u32>, nic: Nic) -> InstanceInfo {
    InstanceInfo { id: id.into(), hypervisor_pid: pid, nics: vec![nic], ..InstanceInfo::default() }
}

/// Returns a TAP that VM `a` used for ten frames and left.
fn left_by_a() -> (Manager, Tap) {
    let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
    let manager = manager_with(&[], TABLES);
    manager.set_instance_source(vec![vm("a", None, Nic::local("vmt0"))]);
    tap.send_udp4(10, 300).unwrap();
    manager.collect();
    manager.set_instance_source(Vec::<InstanceInfo>::new());
    manager.collect();
    (manager, tap)
}

fn one(manager: &mut Manager) -> NicStats {
    nics(manager).remove(0)
}

#[test]
fn a_renamed_tap_starts_at_zero() {
    isolated("pool::a_renamed_tap_starts_at_zero", || {
        let _namespace = NetNs::enter().unwrap();
        let (mut manager, tap) = left_by_a();
        let mut link = tap.link().clone();
        link.down().unwrap();
        link.rename("free").unwrap();
        (0..LONG).for_each(|_| drop(manager.collect()));
        link.rename("vmt1").unwrap();
        link.up().unwrap();
        manager.set_instance_source(vec![vm("b", None, Nic::local("vmt1"))]);
        assert_eq!(one(&mut manager).tx.packets, Some(0));
        tap.send_udp4(3, 300).unwrap();
        assert_eq!(one(&mut manager).tx.packets, Some(3));
    });
}

#[test]
fn a_moved_tap_starts_at_zero() {
    isolated("pool::a_moved_tap_starts_at_zero", || {
        let _namespace = NetNs::enter().unwrap();
        let (mut manager, tap) = left_by_a();
        let (netns, vmm) = {
            let there = NetNs::enter().unwrap();
            let mut waits = Command::new("ip");
            let vmm = ChildProcess::spawn("a VMM", waits.args(["monitor", "link"])).unwrap();
            (there.inode(), vmm)
        };
        ip(&["link", "set", "vmt0", "netns", &vmm.pid().to_string()]).unwrap();
        manager.collect();
        {
            let _inside = enter_of(vmm.pid()).unwrap();
            tap.link().up().unwrap();
        }
        let nic = Nic { tap: "vmt0".into(), netns: Some(netns) };
        manager.set_instance_source(vec![vm("b", Some(vmm.pid()), nic)]);
        assert_eq!(one(&mut manager).tx.packets, Some(0));
        tap.send_udp4(3, 300).unwrap();
        assert_eq!(one(&mut manager).tx.packets, Some(3));
    });
}

/// The new TAP has the name and the index of the deleted one.
#[test]
fn a_replaced_tap_is_another_device() {
    isolated("pool::a_replaced_tap_is_another_device", || {
        let _namespace = NetNs::enter().unwrap();
        let manager = &mut manager_with(&["vmt0"], TABLES);
        let make = || Tap::create_up("vmt0", TapOptions { ifindex: 77, ..TapOptions::default() }).unwrap();
        let first = make();
        first.send_udp4(10, 300).unwrap();
        let before = one(manager);
        drop(first);
        let second = make();
        second.send_udp4(20, 300).unwrap();
        let after = one(manager);
        assert_eq!((before.ifindex, after.ifindex), (Some(77), Some(77)));
        assert_eq!((before.tx.packets, after.tx.packets), (Some(10), Some(20)));
        assert!(before.start_time.is_none() && after.start_time.is_some(), "{after:?}");
        drop(second);
        let third = make();
        third.send_udp4(30, 300).unwrap();
        let last = one(manager);
        assert_eq!(last.tx.packets, Some(30));
        assert!(last.start_time > after.start_time, "{last:?}");
    });
}

/// Within one tick. The VM's sum has the first TAP's last traffic, although the series has no room for it.
#[test]
fn a_replaced_taps_final_counters_are_summed() {
    isolated("pool::a_replaced_taps_final_counters_are_summed", || {
        for (tables, index) in [(TABLES, 0), (TABLES, 77), (WITHOUT_EBPF, 0), (WITHOUT_EBPF, 77)] {
            let _namespace = NetNs::enter().unwrap();
            let manager = &mut manager_with(&["vmt0"], tables);
            let packets = || {
                let vm = manager.collect().vms[0].clone();
                (vm.nics[0].tx.packets, vm.net_tx_packets)
            };
            let make =
                || Tap::create_up("vmt0", TapOptions { ifindex: index, ..TapOptions::default() }).unwrap();
            let first = make();
            packets();
            first.send_udp4(10, 300).unwrap();
            assert_eq!(packets(), (Some(10), Some(10)));
            first.send_udp4(5, 300).unwrap();
            drop(first);
            let second = make();
            second.send_udp4(3, 300).unwrap();
            assert_eq!(packets(), (Some(3), Some(18)), "index {index}, {tables}");
            second.send_udp4(4, 300).unwrap();
            assert_eq!(packets(), (Some(7), Some(22)), "index {index}, {tables}");
        }
    });
}

/// This falls within the tick in which its VM ends and another one gets the new device.
#[test]
fn a_reassigned_taps_final_counters_are_kept() {
    isolated("pool::a_reassigned_taps_final_counters_are_kept", || {
        let _namespace = NetNs::enter().unwrap();
        let manager = manager_with(&[], "[readers.tap_ebpf]\nenabled = false\n");
        let make = || Tap::create_up("vmt0", TapOptions { ifindex: 77, ..TapOptions::default() }).unwrap();
        manager.set_instance_source(vec![vm("a", None, Nic::local("vmt0"))]);
        let first = make();
        first.send_udp4(10, 300).unwrap();
        manager.collect();
        first.send_udp4(3, 300).unwrap();
        drop(first);
        let second = make();
        second.send_udp4(20, 300).unwrap();
        manager.set_instance_source(vec![vm("b", None, Nic::local("vmt0"))]);
        let all = manager.collect();
        let sent = |id: &str| all.vms.iter().find(|vm| vm.instance_id == id).unwrap().net_tx_packets;
        assert_eq!((sent("a"), sent("b")), (Some(13), Some(20)));
    });
}
