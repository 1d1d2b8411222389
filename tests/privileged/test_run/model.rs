//! Computes the expected counters of a frame from the documentation alone.
//!
//! The definitions are in docs/accounting.md and docs/metrics.md. The model shares no line with the programs. It parses
//! headers front to back, as a textbook does.

use vm_metrics_common::DirectionStats;

/// The model skips at most so many IPv6 extension headers.
const EXTENSIONS: usize = 4;

/// Returns the increments of the counters in the frame's direction.
pub fn counted(frame: &[u8], gso_size: u16) -> DirectionStats {
    let (ethertype, packet) = behind_the_tags(frame);
    let mut counts = DirectionStats { packets: 1, bytes: frame.len() as u64, ..DirectionStats::default() };
    match frame[..6] {
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => counts.broadcast = 1,
        [first, ..] if first % 2 == 1 => counts.multicast = 1,
        _ => counts.unicast = 1,
    }
    let transport = match ethertype {
        Some(0x0800) => {
            counts.ipv4 = 1;
            Some(ipv4_transport(packet))
        }
        Some(0x86dd) => {
            counts.ipv6 = 1;
            Some(ipv6_transport(packet))
        }
        Some(0x0806) => {
            counts.arp = 1;
            None
        }
        _ => {
            counts.other_l3 = 1;
            None
        }
    };
    match transport.as_ref().map(|transport| transport.protocol) {
        Some(Some(6)) => counts.tcp = 1,
        Some(Some(17)) => counts.udp = 1,
        Some(Some(1 | 58)) => counts.icmp = 1,
        Some(_) => counts.other_l4 = 1,
        None => {}
    }
    counts.gso_packets = u64::from(gso_size > 0);
    let headers = frame.len() - packet.len() + transport.map_or(0, |transport| transport.payload_at(packet));
    let (wire_packets, wire_bytes) = on_the_wire(frame.len(), headers, gso_size.into());
    DirectionStats { wire_packets, wire_bytes, ..counts }
}

/// Each segment has its own headers and at most `gso_size` of the payload.
fn on_the_wire(len: usize, headers: usize, gso_size: usize) -> (u64, u64) {
    if gso_size == 0 || len <= headers {
        return (1, len as u64);
    }
    let segments: Vec<usize> =
        vec![0; len - headers].chunks(gso_size).map(|part| headers + part.len()).collect();
    (segments.len() as u64, segments.iter().sum::<usize>() as u64)
}

/// Returns the EtherType behind at most two VLAN tags, and the rest. An empty rest has no type.
fn behind_the_tags(frame: &[u8]) -> (Option<u16>, &[u8]) {
    let mut rest = &frame[12..];
    for _ in 0..2 {
        match rest {
            [0x81, 0x00, ..] | [0x88, 0xa8, ..] => rest = rest.get(4..).unwrap_or_default(),
            _ => break,
        }
    }
    match rest {
        [high, low, packet @ ..] => (Some(u16::from_be_bytes([*high, *low])), packet),
        _ => (None, &[]),
    }
}

struct Transport {
    /// `None` when the frame ends before its protocol field.
    protocol: Option<u8>,
    /// Offset of its header in the packet.
    at: usize,
}

impl Transport {
    /// Returns the offset of its payload. TCP has a length field; all others count as eight bytes.
    fn payload_at(&self, packet: &[u8]) -> usize {
        let header = match self.protocol {
            Some(6) => packet.get(self.at + 12).map_or(0, |offset| usize::from(offset >> 4) * 4),
            _ => 8,
        };
        self.at + header
    }
}

fn ipv4_transport(packet: &[u8]) -> Transport {
    let at = packet.first().map_or(0, |first| usize::from(first % 16) * 4);
    Transport { protocol: packet.get(9).copied(), at }
}

fn ipv6_transport(packet: &[u8]) -> Transport {
    let mut protocol = packet.get(6).copied();
    let mut at = 40;
    for _ in 0..EXTENSIONS {
        let header = packet.get(at..).unwrap_or_default();
        let length = match protocol {
            Some(44) => 8,
            Some(0 | 43 | 60) => header.get(1).map_or(8, |length| usize::from(*length) * 8 + 8),
            _ => return Transport { protocol, at },
        };
        protocol = header.first().copied();
        at += length;
    }
    // One extension header too many counts as any other protocol.
    Transport { protocol, at }
}
