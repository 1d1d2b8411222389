//! Handmade frames with their expected counts, written down, not computed.

use vm_metrics_testkit::frames::{BROADCAST, Frame, GUEST, MULTICAST, PEER};

/// Name, frame, GSO size, packets and bytes on the wire, and the other counters that it increments.
pub type Case = (&'static str, Vec<u8>, u16, (u64, u64), &'static [&'static str]);

pub fn cases() -> Vec<Case> {
    let f = Frame::from_guest;
    let ip4 = |ihl: u8, protocol: u8, rest: usize| {
        let mut packet = vec![0; 20 + rest];
        (packet[0], packet[9]) = (0x40 | ihl, protocol);
        ethernet(0x0800, &packet)
    };
    let options = |frame: Vec<u8>| {
        // Inserts eight bytes of "no operation" behind the header.
        let mut frame = frame;
        frame[14] = 0x47;
        frame.splice(34..34, [1; 8]);
        frame
    };
    vec![
        ("all ones", vec![0xff; 60], 0, (1, 60), &["broadcast", "other_l3"]),
        ("all ones, no more than a header", vec![0xff; 14], 0, (1, 14), &["broadcast", "other_l3"]),
        ("all zeroes", vec![0; 60], 0, (1, 60), &["unicast", "other_l3"]),
        ("a length instead of a type", f().other(100, 100), 0, (1, 114), &["unicast", "other_l3"]),
        ("ARP", f().to(BROADCAST).arp(), 0, (1, 42), &["broadcast", "arp"]),
        ("ARP without a body", ethernet(0x0806, &[]), 0, (1, 14), &["unicast", "arp"]),
        ("a VLAN tag that is cut off", ethernet(0x8100, &[0]), 0, (1, 15), &["unicast", "other_l3"]),
        (
            "a VLAN tag cut within its type",
            ethernet(0x8100, &[0, 7, 8]),
            0,
            (1, 17),
            &["unicast", "other_l3"],
        ),
        ("a VLAN tag and no more", ethernet(0x8100, &[0, 7]), 0, (1, 16), &["unicast", "other_l3"]),
        ("802.1Q", f().vlan(7).tcp4(0), 0, (1, 58), &["unicast", "ipv4", "tcp"]),
        ("QinQ", f().service_vlan(9).vlan(7).udp6(1), 0, (1, 71), &["unicast", "ipv6", "udp"]),
        ("three tags", f().vlan(1).vlan(2).vlan(3).udp4(1), 0, (1, 55), &["unicast", "other_l3"]),
        ("IPv4 options", options(f().tcp4(6)), 0, (1, 68), &["unicast", "ipv4", "tcp"]),
        (
            "GSO behind IPv4 options",
            options(f().tcp4(100)),
            40,
            (3, 162 + 2 * 62),
            &["unicast", "ipv4", "tcp", "gso_packets"],
        ),
        ("IPv4 without a body", ethernet(0x0800, &[]), 0, (1, 14), &["unicast", "ipv4", "other_l4"]),
        (
            "IPv4 cut before its protocol",
            ethernet(0x0800, &[0x45; 9]),
            0,
            (1, 23),
            &["unicast", "ipv4", "other_l4"],
        ),
        ("IPv4 with a header length of 0", ip4(0, 17, 8), 0, (1, 42), &["unicast", "ipv4", "udp"]),
        (
            "IPv4 with a header longer than it",
            ip4(15, 6, 0),
            9,
            (1, 34),
            &["unicast", "ipv4", "tcp", "gso_packets"],
        ),
        ("SCTP", ip4(5, 132, 12), 0, (1, 46), &["unicast", "ipv4", "other_l4"]),
        ("IPv6 without a body", ethernet(0x86dd, &[]), 0, (1, 14), &["unicast", "ipv6", "other_l4"]),
        ("a fragment", chain(44, &[(6, 0)], 20), 0, (1, 82), &["unicast", "ipv6", "tcp"]),
        (
            "four extensions",
            chain(0, &[(60, 0), (43, 0), (44, 0), (17, 9)], 20),
            5,
            (3, 106 + 2 * 94),
            &["unicast", "ipv6", "udp", "gso_packets"],
        ),
        (
            "five extensions",
            chain(0, &[(60, 0), (43, 0), (60, 0), (60, 0), (17, 0)], 8),
            0,
            (1, 102),
            &["unicast", "ipv6", "other_l4"],
        ),
        ("an endless chain", chain(0, &[(0, 0); 300], 0), 0, (1, 2454), &["unicast", "ipv6", "other_l4"]),
        (
            "an extension that points past the end",
            chain(0, &[(6, 255)], 0),
            0,
            (1, 62),
            &["unicast", "ipv6", "tcp"],
        ),
        ("a chain cut off", chain(0, &[], 0), 0, (1, 54), &["unicast", "ipv6", "other_l4"]),
        ("ESP", chain(50, &[], 40), 0, (1, 94), &["unicast", "ipv6", "other_l4"]),
        ("ICMPv6 to a group", f().to(MULTICAST).icmp6(0), 0, (1, 62), &["multicast", "ipv6", "icmp"]),
        (
            "a GSO frame of one segment",
            f().tcp4(1000),
            1000,
            (1, 1054),
            &["unicast", "ipv4", "tcp", "gso_packets"],
        ),
        ("a GSO frame of two", f().tcp4(1001), 1000, (2, 1109), &["unicast", "ipv4", "tcp", "gso_packets"]),
        (
            "a GSO frame of bytes",
            f().udp6(2000),
            1,
            (2000, 2000 * 63),
            &["unicast", "ipv6", "udp", "gso_packets"],
        ),
        (
            "GSO behind a tag",
            f().vlan(7).udp4(2001),
            1000,
            (3, 2001 + 3 * 46),
            &["unicast", "ipv4", "udp", "gso_packets"],
        ),
        ("GSO without IP", f().other(0x88b5, 100), 60, (2, 128), &["unicast", "other_l3", "gso_packets"]),
        ("the largest GSO size", f().tcp4(9), 65_535, (1, 63), &["unicast", "ipv4", "tcp", "gso_packets"]),
    ]
}

fn ethernet(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    [&PEER[..], &GUEST, &ethertype.to_be_bytes(), packet].concat()
}

/// Makes an IPv6 packet whose header names `first`, then extension headers, then `rest` bytes. Each extension names the
/// next header and its length in eights beyond the first.
fn chain(first: u8, extensions: &[(u8, u8)], rest: usize) -> Vec<u8> {
    let mut packet = vec![0; 40];
    (packet[0], packet[6]) = (0x60, first);
    for (next, length) in extensions {
        packet.extend([*next, *length, 0, 0, 0, 0, 0, 0]);
    }
    packet.resize(packet.len() + rest, 0);
    ethernet(0x86dd, &packet)
}
