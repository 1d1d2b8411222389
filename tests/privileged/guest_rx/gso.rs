//! The device counts segments of GSO frames that the guest does not take whole.

use vm_metrics_testkit::frames::{Frame, VNET_HEADER};
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::skip::skip_part;
use vm_metrics_testkit::tap::TapOptions;

use super::{assert_balance, look, offer, sees_drops, take};
use crate::chain::tc;
use crate::lab::{Lab, ways};

const SEGMENT: u16 = 1000;

fn options(offload: bool) -> TapOptions {
    TapOptions { vnet_hdr: true, offload, ..TapOptions::default() }
}

/// Returns frames with the length of their payload and of their headers.
fn frames() -> Vec<(&'static str, Vec<u8>, u64, u64)> {
    let gso = || Frame::to_guest().gso(SEGMENT);
    vec![
        ("TCP over IPv4", gso().tcp4(20_000), 20_000, 54),
        ("TCP over IPv4, a short last segment", gso().tcp4(60_001), 60_001, 54),
        ("TCP over IPv6", gso().tcp6(12_345), 12_345, 74),
        ("TCP under 802.1Q", gso().vlan(7).tcp4(4000), 4000, 58),
        ("one segment", gso().tcp4(900), 900, 54),
    ]
}

#[test]
fn the_device_counts_segments_with_or_without_offload() {
    for way in ways() {
        for offload in [false, true] {
            let mut lab = Lab::attached_by(way, 1, options(offload));
            let host = PacketSocket::bind_with_vnet_header("vmt0").unwrap();
            for (what, frame, payload, headers) in frames() {
                let what = format!("{what} by {way}, TSO {offload}");
                let before = look(&mut lab);
                host.send(&frame).unwrap();
                let segments = if offload { 1 } else { payload.div_ceil(SEGMENT.into()) };
                let (_, offered) = look(&mut lab);
                assert_eq!(offered.packets, before.1.packets.map(|n| n + segments), "{what}");
                let bytes = payload + segments * headers;
                assert_eq!(offered.bytes, before.1.bytes.map(|n| n + bytes), "{what}");
                let taken = take(&lab, usize::MAX);
                assert_eq!(taken.len() as u64, segments, "{what}");
                assert_eq!(taken.iter().map(|len| (len - VNET_HEADER) as u64).sum::<u64>(), bytes, "{what}");
                let (nic, offered) = look(&mut lab);
                assert_eq!((nic.rx.packets, nic.rx.bytes), (offered.packets, offered.bytes), "{what}");
                assert_eq!(offered.backlog_packets, Some(0), "{what}");
            }
        }
    }
}

#[test]
fn udp_is_segmented_as_the_device_counts() {
    let mut lab = Lab::new(1, options(true));
    let host = PacketSocket::bind_with_vnet_header("vmt0").unwrap();
    if let Err(error) = host.send(&Frame::to_guest().gso(SEGMENT).udp4(3001)) {
        return skip_part(
            "of UDP",
            &format!("packet sockets take it in segments from Linux 6.2 on: {error:#}"),
        );
    }
    take(&lab, usize::MAX);
    let (nic, offered) = look(&mut lab);
    assert_eq!((nic.rx.packets, nic.rx.bytes), (offered.packets, offered.bytes));
    assert_eq!(offered.packets, Some(4), "this guest takes TCP only");
}

#[test]
fn a_guest_may_toggle_offload_under_traffic() {
    let mut lab = Lab::new(1, options(true));
    let host = PacketSocket::bind_with_vnet_header("vmt0").unwrap();
    let (mut packets, mut bytes) = (0, 0);
    for round in 0..40 {
        let takes_whole = round % 3 == 0;
        lab.taps[0].set_offload(takes_whole).unwrap();
        for (_, frame, payload, headers) in frames() {
            host.send(&frame).unwrap();
            let segments = if takes_whole { 1 } else { payload.div_ceil(SEGMENT.into()) };
            packets += segments;
            bytes += payload + segments * headers;
        }
        take(&lab, usize::MAX);
    }
    let (nic, offered) = look(&mut lab);
    assert_eq!((offered.packets, offered.bytes), (Some(packets), Some(bytes)));
    assert_eq!((nic.rx.packets, nic.rx.bytes), (Some(packets), Some(bytes)));
}

#[test]
fn dropped_gso_frames_balance() {
    for offload in [false, true] {
        let mut lab = Lab::new(1, options(offload));
        let host = PacketSocket::bind_with_vnet_header("vmt0").unwrap();
        for _ in 0..500 {
            frames().iter().for_each(|(_, frame, ..)| offer(&host, frame));
        }
        let (_, offered) = look(&mut lab);
        if !sees_drops(&offered) {
            return;
        }
        assert!(offered.dropped_ring_full.unwrap().packets > 0, "{offered:?}");
        let taken = take(&lab, usize::MAX);
        let waited = taken.iter().map(|len| (len - VNET_HEADER) as u64).sum();
        let what = format!("TSO {offload}");
        assert_eq!(offered.backlog_bytes, Some(waited), "{what}");
        assert_eq!(offered.backlog_packets, Some(taken.len() as u64), "{what}");
        let (nic, offered) = look(&mut lab);
        assert_balance(&nic, &offered, (0, 0), &what);
    }
}

/// The qdisc drops them whole, but the guest loses their segments.
#[test]
fn qdisc_drops_of_gso_frames_count_segments() {
    for offload in [false, true] {
        let mut lab = Lab::new(1, options(offload));
        // The rate lets only the first frame out, and the burst holds each frame whole.
        tc("qdisc add dev vmt0 root tbf rate 8bit burst 65kb limit 130kb");
        let host = PacketSocket::bind_with_vnet_header("vmt0").unwrap();
        let frame = Frame::to_guest().gso(SEGMENT).tcp4(60_001);
        let (segments, headers) = if offload { (1, 54) } else { (61, 54) };
        for _ in 0..10 {
            offer(&host, &frame);
        }
        let (nic, offered) = look(&mut lab);
        if !sees_drops(&offered) {
            return;
        }
        let dropped = offered.dropped_qdisc.unwrap();
        let lost = dropped.packets / segments;
        assert!(lost > 0 && lost < 10, "{offered:?}");
        assert_eq!(dropped.bytes, lost * (60_001 + segments * headers));
        let waits = (10 - lost) * segments;
        assert_eq!(offered.backlog_packets, Some(waits), "{nic:?}");
    }
}
