//! What goes away between two ticks: its last bytes are still published, then its series end.

use vm_metrics::manager::Manager;
use vm_metrics::model::VmStats;
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::tap::{Tap, TapOptions};

use crate::lab::{manager_with, nics, ways};

fn send(tap: &Tap, frames: u64) {
    for _ in 0..frames {
        tap.write_frame(&Frame::from_guest().udp4(300)).unwrap();
    }
}

fn only(manager: &mut Manager) -> VmStats {
    let snapshot = manager.tick(0);
    assert_eq!(snapshot.vms.len(), 1);
    snapshot.vms[0].clone()
}

#[test]
fn the_last_frames_of_a_tap_are_counted() {
    for way in ways() {
        let _namespace = NetNs::enter().unwrap();
        let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
        let tables = format!("[readers.tap_ebpf]\npin = false\nattach = \"{way}\"\n");
        let mut manager = manager_with(&["vmt0"], &tables);
        manager.tick(0);
        send(&tap, 5);
        manager.tick(0);
        send(&tap, 7);
        let frame = Frame::to_guest().udp4(1000);
        let host = PacketSocket::bind("vmt0").unwrap();
        let mut buffer = [0; 2048];
        for _ in 0..3 {
            host.send(&frame).unwrap();
            assert!(tap.read_frame(&mut buffer).unwrap().is_some());
        }
        drop(tap);
        for _ in 0..3 {
            let nic = nics(&mut manager).remove(0);
            let taken = 3 * frame.len() as u64;
            assert_eq!((nic.rx.packets, nic.rx.bytes), (Some(3), Some(taken)), "{way}: by the last message");
            assert_eq!(nic.tx.packets, Some(12), "{way}");
            assert_eq!(nic.ebpf.unwrap().tx.udp, 12, "{way}");
        }
        let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
        send(&tap, 1);
        assert_eq!(nics(&mut manager).remove(0).tx.packets, Some(1), "{way}: a new device begins anew");
    }
}

#[test]
fn series_end_after_the_retention() {
    let _namespace = NetNs::enter().unwrap();
    let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
    let mut manager = manager_with(&["vmt0"], "retention = \"0s\"\n[readers.tap_ebpf]\npin = false\n");
    manager.tick(0);
    send(&tap, 5);
    assert_eq!(only(&mut manager).nics[0].tx.packets, Some(5));
    drop(tap);
    assert_eq!(nics(&mut manager)[0].tx.packets, None);
}
