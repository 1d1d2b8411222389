//! Programs attach to and detach from TAPs without a trace in the numbers.
//!
//! Tests that drop a TAP run `isolated`, because a new process of another test would hold the TAP a little longer.

use vm_metrics::{AttachMode, NicSource};
use vm_metrics_common::TABLE_SIZE;
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::tap::{Tap, TapOptions};

use crate::isolation::isolated;
use crate::lab::{Lab, manager_for, manager_with, nics, ways};

#[test]
fn traffic_before_the_attach_is_not_lost() {
    for way in ways() {
        before_the_attach(way, if way == "tcx" { AttachMode::Tcx } else { AttachMode::Clsact });
    }
}

fn before_the_attach(way: &str, mode: AttachMode) {
    let mut lab = Lab::without_tick(way, 1, TapOptions::default());
    let frame = Frame::from_guest().udp4(300);
    for _ in 0..7 {
        lab.send(&frame);
    }
    let len = frame.len() as u64;
    let (nic, ebpf) = lab.tick_one();
    assert_eq!((nic.tx.packets, nic.tx.bytes), (Some(7), Some(7 * len)));
    assert_eq!(nic.attach, mode);
    assert_eq!((ebpf.tx.packets, ebpf.tx.udp.unwrap()), (0, 0), "counted since the attach");
    lab.send(&frame);
    let (nic, ebpf) = lab.tick_one();
    assert_eq!((nic.tx.packets, nic.tx.bytes), (Some(8), Some(8 * len)));
    assert_eq!((ebpf.tx.packets, ebpf.tx.wire_bytes.unwrap(), ebpf.tx.udp.unwrap()), (1, len, 1));
}

#[test]
fn new_taps_are_counted_and_deleted_ones_forgotten() {
    isolated("attach::new_taps_are_counted_and_deleted_ones_forgotten", || {
        let _namespace = NetNs::enter().unwrap();
        let mut manager = manager_for("auto", &["vmt0"]);
        let frame = Frame::from_guest().udp4(300);
        for incarnation in 1..=3 {
            let absent = nics(&mut manager).remove(0);
            assert_eq!((absent.source, absent.tx.bytes, absent.ebpf), (NicSource::None, None, None));
            let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
            manager.collect();
            for _ in 0..incarnation {
                tap.write_frame(&frame).unwrap();
            }
            let nic = nics(&mut manager).remove(0);
            assert_eq!((nic.source, nic.ifindex), (NicSource::Ebpf, Some(tap.ifindex())));
            assert_eq!(nic.tx.packets, Some(incarnation), "the numbers of a former TAP");
            assert_eq!(nic.ebpf.unwrap().tx.udp.unwrap(), incarnation, "the counters of a former TAP");
        }
    });
}

/// The new TAP has another index, or the same one on request.
#[test]
fn a_replaced_tap_starts_at_zero() {
    isolated("attach::a_replaced_tap_starts_at_zero", || {
        for ifindex in [0, 4242] {
            let options = TapOptions { ifindex, ..TapOptions::default() };
            let mut lab = Lab::new(1, options);
            let frame = Frame::from_guest().udp4(300);
            for _ in 0..50 {
                lab.send(&frame);
            }
            assert_eq!(lab.tick_one().0.tx.packets, Some(50));
            lab.taps.clear();
            lab.taps.push(Tap::create_up("vmt0", options).unwrap());
            (0..60).for_each(|_| lab.send(&frame));
            lab.tick();
            lab.send(&frame);
            let (nic, ebpf) = lab.tick_one();
            assert_eq!((nic.tx.packets, ebpf.tx.packets), (Some(61), 1), "index {ifindex}");
        }
    });
}

#[test]
fn a_reused_slot_starts_at_zero() {
    isolated("attach::a_reused_slot_starts_at_zero", || {
        let _namespace = NetNs::enter().unwrap();
        let mut manager = manager_with(&["vmt0"], "[readers.tap_ebpf]\nmax_nics = 1\npin = false\n");
        let frame = Frame::from_guest().udp4(300);
        for incarnation in 1..=3 {
            let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
            manager.collect();
            for _ in 0..incarnation {
                tap.write_frame(&frame).unwrap();
            }
            assert_eq!(nics(&mut manager)[0].ebpf.unwrap().tx.udp.unwrap(), incarnation);
        }
    });
}

#[test]
fn colliding_table_entries_are_counted_apart() {
    let _namespace = NetNs::enter().unwrap();
    let at = |ifindex| TapOptions { ifindex, ..TapOptions::default() };
    let first = Tap::create_up("vmt0", at(5000)).unwrap();
    let second = Tap::create_up("vmt1", at(5000 + TABLE_SIZE)).unwrap();
    assert_eq!(second.ifindex() - first.ifindex(), TABLE_SIZE);
    let mut manager = manager_for("auto", &["vmt0", "vmt1"]);
    manager.collect();
    let frame = Frame::from_guest().udp4(300);
    let mut udp = || -> Vec<_> {
        nics(&mut manager).iter().map(|nic| nic.ebpf.map(|ebpf| ebpf.tx.udp.unwrap())).collect()
    };
    first.write_frame(&frame).unwrap();
    for _ in 0..3 {
        second.write_frame(&frame).unwrap();
    }
    assert_eq!(udp(), [Some(1), Some(3)]);
    drop(first);
    assert_eq!(udp(), [None, Some(3)]);
    second.write_frame(&frame).unwrap();
    assert_eq!(udp(), [None, Some(4)]);
}
