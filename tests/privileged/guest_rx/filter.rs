//! Drop reasons when the VMM sets a filter on its TAP.

use vm_metrics::Traffic;
use vm_metrics_testkit::frames::GUEST;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::tap::TapOptions;

use super::{assert_balance, bytes, frames, look, offer, sees_drops};
use crate::lab::{Lab, ways};

const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

#[test]
fn an_address_filter_has_its_own_reason() {
    for way in ways() {
        let mut lab = Lab::attached_by(way, 1, TapOptions::default());
        lab.taps[0].take_only(OTHER).unwrap();
        let host = PacketSocket::bind("vmt0").unwrap();
        let sent: Vec<_> = frames().take(20).collect();
        sent.iter().for_each(|frame| offer(&host, frame));
        let (nic, offered) = look(&mut lab);
        assert_eq!(nic.rx.dropped, Some(20), "{way}");
        if sees_drops(&offered) {
            assert_eq!(offered.dropped_filter, Some(Traffic { packets: 20, bytes: bytes(&sent) }), "{way}");
            assert_eq!(offered.dropped_ring_full, Some(Traffic::default()), "{way}");
            assert_balance(&nic, &offered, (0, 0), way);
        }
    }
}

/// The kernel gives this reason for other sockets too, and before the attach no program counted it.
#[test]
fn drops_without_a_known_reason_are_unspecified() {
    let mut lab = Lab::without_tick("auto", 1, TapOptions::default());
    lab.taps[0].take_only(OTHER).unwrap();
    let host = PacketSocket::bind("vmt0").unwrap();
    let mut sent = frames();
    let mut send = |frames: usize| sent.by_ref().take(frames).for_each(|frame| offer(&host, &frame));
    send(7);
    lab.tick();
    send(5);
    let by_device = |lab: &mut Lab| {
        let (nic, offered) = look(lab);
        let published = offered.dropped_filter.map_or(0, |filter| filter.packets);
        assert_eq!(nic.rx.dropped, Some(published + nic.rx_dropped_by_device.unwrap()), "{nic:?}");
        (sees_drops(&offered), nic.rx_dropped_by_device.unwrap())
    };
    let (is_told, before) = by_device(&mut lab);
    assert_eq!(before, if is_told { 7 } else { 12 });
    // The address is now the guest's, and the socket filter refuses the frames.
    lab.taps[0].take_only(GUEST).unwrap();
    lab.taps[0].refuse_all().unwrap();
    send(3);
    assert_eq!(by_device(&mut lab), (is_told, before + 3));
}
