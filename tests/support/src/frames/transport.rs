//! Transport headers with checksums: UDP, TCP and ICMP.

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;

/// A transport header: its length, and the offset of its checksum.
#[derive(Clone, Copy)]
pub(super) struct Transport {
    pub(super) protocol: u8,
    pub(super) header: usize,
    pub(super) checksum_at: usize,
}

impl Transport {
    /// Returns header and payload. A partial checksum is the sum of the pseudo header, for segmentation to complete.
    pub(super) fn packet(self, payload: usize, from: &[u8], to: &[u8], partial: bool) -> Vec<u8> {
        let length = self.header + payload;
        let mut packet = match self.protocol {
            UDP => [word(40_000), word(9), word(length), [0, 0]].concat(),
            // Sequence and acknowledgement zero, five words of header, ACK, the whole window.
            TCP => [&word(40_000)[..], &word(9), &[0; 8], &[0x50, 0x10, 0xff, 0xff], &[0; 4]].concat(),
            ICMP => vec![8, 0, 0, 0, 0, 1, 0, 1],
            _ => vec![128, 0, 0, 0, 0, 1, 0, 1],
        };
        packet.extend(pattern(payload));
        let pseudo = match self.protocol {
            ICMP => 0,
            protocol => sum(from) + sum(to) + u32::from(protocol) + length as u32,
        };
        let field = if partial { fold(pseudo) } else { !fold(pseudo + sum(&packet)) };
        packet[self.checksum_at..][..2].copy_from_slice(&field.to_be_bytes());
        packet
    }
}

pub(super) fn udp() -> Transport {
    Transport { protocol: UDP, header: 8, checksum_at: 6 }
}

pub(super) fn tcp() -> Transport {
    Transport { protocol: TCP, header: 20, checksum_at: 16 }
}

pub(super) fn icmp(protocol: u8) -> Transport {
    Transport { protocol, header: 8, checksum_at: 2 }
}

pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| i as u8).collect()
}

pub(super) fn word(value: usize) -> [u8; 2] {
    (value as u16).to_be_bytes()
}

/// Returns the sum of RFC 1071 before the carries. It has room for 128 KiB.
pub(super) fn sum(bytes: &[u8]) -> u32 {
    let pairs = bytes.chunks(2);
    pairs.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum()
}

pub(super) fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}
