//! A macvtap reverses the directions: guest output is the device's tx.

use vm_metrics::Manager;
use vm_metrics::{AttachMode, NicKind, NicSource, NicStats};
use vm_metrics_testkit::frames::{Frame, PEER};
use vm_metrics_testkit::macvtap::Macvtap;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::skip::skip;

use crate::lab::{manager_with, nics, ways};

const SENT: u64 = 3;
const RECEIVED: u64 = 7;

struct Port {
    macvtap: Macvtap,
    _namespace: NetNs,
}

impl Port {
    /// `None`, with a skip message, on a kernel without macvtaps.
    fn new() -> Option<Self> {
        let namespace = NetNs::enter().unwrap();
        let macvtap = Macvtap::create_up("vmv0").unwrap();
        if macvtap.is_none() {
            skip("this kernel has no macvtap");
        }
        Some(Self { macvtap: macvtap?, _namespace: namespace })
    }

    /// Sends more traffic to the guest than from it. No one reads it, so the device's counters differ from the reads.
    fn traffic(&self) -> (u64, u64) {
        let sent = Frame::from_guest().to(PEER).udp4(100);
        for _ in 0..SENT {
            self.macvtap.write_frame(&sent).unwrap();
        }
        let own = self.macvtap.link().hardware_address().unwrap();
        let received = Frame::to_guest().to(own).tcp4(900);
        let peer = PacketSocket::bind(self.macvtap.peer().name()).unwrap();
        for _ in 0..RECEIVED {
            peer.send(&received).unwrap();
        }
        (SENT * sent.len() as u64, RECEIVED * received.len() as u64)
    }
}

fn one(manager: &mut Manager) -> NicStats {
    nics(manager).remove(0)
}

#[test]
fn macvtap_writes_are_tx_and_reads_rx() {
    let Some(port) = Port::new() else { return };
    for way in ways() {
        let tables = format!("retention = \"0s\"\n[readers.tap_ebpf]\nattach = \"{way}\"\npin = false\n");
        let mut manager = manager_with(&["vmv0"], &tables);
        one(&mut manager);
        let before = one(&mut manager);
        let (sent, received) = port.traffic();
        let after = one(&mut manager);

        assert_eq!((after.kind, after.source), (NicKind::Macvtap, NicSource::Netlink), "{way}");
        assert_ne!(after.attach, AttachMode::None, "{way}");
        let bytes = |nic: &NicStats| (nic.rx.bytes.unwrap(), nic.tx.bytes.unwrap());
        let packets = |nic: &NicStats| (nic.rx.packets.unwrap(), nic.tx.packets.unwrap());
        let by_device = (bytes(&after).0 - bytes(&before).0, bytes(&after).1 - bytes(&before).1);
        assert_eq!(by_device, (received, sent), "{way}");
        let by_device = (packets(&after).0 - packets(&before).0, packets(&after).1 - packets(&before).1);
        assert_eq!(by_device, (RECEIVED, SENT), "{way}");

        let (before, after) = (before.ebpf.unwrap(), after.ebpf.unwrap());
        assert_eq!(
            (after.rx.bytes - before.rx.bytes, after.rx.tcp.unwrap() - before.rx.tcp.unwrap()),
            (received, RECEIVED),
            "{way}"
        );
        assert_eq!(
            (after.tx.bytes - before.tx.bytes, after.tx.udp.unwrap() - before.tx.udp.unwrap()),
            (sent, SENT),
            "{way}"
        );
        assert_eq!(
            (after.rx.udp.unwrap(), after.tx.tcp.unwrap()),
            (before.rx.udp.unwrap(), before.tx.tcp.unwrap()),
            "{way}"
        );
    }
}

#[test]
fn sysfs_recognises_a_macvtap() {
    let Some(port) = Port::new() else { return };
    let off = "[readers]\ntap_netlink.enabled = false\ntap_ebpf.enabled = false\n";
    let mut manager = manager_with(&["vmv0"], off);
    let (sent, received) = port.traffic();
    let nic = one(&mut manager);
    assert_eq!((nic.kind, nic.source), (NicKind::Macvtap, NicSource::Sysfs));
    assert_eq!((nic.rx.bytes, nic.tx.bytes), (Some(received), Some(sent)));
}

#[test]
fn a_deleted_macvtaps_final_counters_keep_direction() {
    let Some(port) = Port::new() else { return };
    let mut manager = manager_with(&["vmv0"], "[readers.tap_ebpf]\nenabled = false\n");
    one(&mut manager);
    let (sent, received) = port.traffic();
    port.macvtap.delete().unwrap();
    let nic = one(&mut manager);
    assert_eq!((nic.rx.bytes, nic.tx.bytes), (Some(received), Some(sent)));
}

#[test]
fn a_full_macvtap_queue_counts_drops() {
    const QUEUE: u64 = 500;
    let Some(port) = Port::new() else { return };
    let mut manager = manager_with(&["vmv0"], "[readers.tap_ebpf]\npin = false\n");
    one(&mut manager);
    let own = port.macvtap.link().hardware_address().unwrap();
    for _ in 0..QUEUE + 30 {
        // A queued frame counts for its sender, and one socket may not have so many in flight.
        let peer = PacketSocket::bind(port.macvtap.peer().name()).unwrap();
        peer.send(&Frame::to_guest().to(own).udp4(10)).unwrap();
    }
    let nic = one(&mut manager);
    assert_eq!((nic.rx.packets, nic.rx.dropped), (Some(QUEUE + 30), Some(30)));
    assert_eq!(nic.ebpf.unwrap().rx.packets, QUEUE + 30);
}
