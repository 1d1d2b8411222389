//! Builds test frames with correct lengths and checksums.
//!
//! The frames travel between an invented guest and an invented peer. The peer's address is not that of the TAP, so the
//! host's stack drops guest frames, and neither answers nor forwards them. Only frames of the test are on the device.

mod transport;

use self::transport::{ICMP, ICMPV6, TCP, Transport, UDP, fold, icmp, pattern, sum, tcp, udp, word};

/// An Ethernet address.
pub type Mac = [u8; 6];

pub const GUEST: Mac = [0x02, 0, 0, 0, 0, 0x02];
pub const PEER: Mac = [0x02, 0, 0, 0, 0, 0x01];
pub const BROADCAST: Mac = [0xff; 6];
/// All hosts, 224.0.0.1.
pub const MULTICAST: Mac = [0x01, 0x00, 0x5e, 0, 0, 0x01];

/// An Ethernet header without a VLAN tag.
pub const ETHERNET_HEADER: usize = 14;
/// The header before each frame on a TAP with `vnet_hdr`.
pub const VNET_HEADER: usize = 10;

const GUEST4: [u8; 4] = [192, 0, 2, 2];
const PEER4: [u8; 4] = [192, 0, 2, 1];
const GUEST6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const PEER6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const HOP_BY_HOP: u8 = 0;

/// VIRTIO_NET_HDR_F_NEEDS_CSUM
const NEEDS_CHECKSUM: u8 = 1;

/// A frame under construction: addresses and tags first, and the last call sets the payload.
///
/// ```
/// use vm_metrics_testkit::frames::{BROADCAST, Frame};
/// assert_eq!(Frame::from_guest().udp4(100).len(), 14 + 20 + 8 + 100);
/// assert_eq!(Frame::from_guest().to(BROADCAST).vlan(7).arp().len(), 14 + 4 + 28);
/// ```
#[derive(Clone, Debug)]
pub struct Frame {
    source: Mac,
    destination: Mac,
    /// Outermost first: TPID and VLAN id.
    tags: Vec<(u16, u16)>,
    vnet: Vnet,
}

#[derive(Clone, Copy, Debug)]
enum Vnet {
    Absent,
    Plain,
    Gso(u16),
}

impl Frame {
    pub fn from_guest() -> Self {
        Self { source: GUEST, destination: PEER, tags: Vec::new(), vnet: Vnet::Absent }
    }

    pub fn to_guest() -> Self {
        Self { source: PEER, destination: GUEST, tags: Vec::new(), vnet: Vnet::Absent }
    }

    pub fn to(mut self, destination: Mac) -> Self {
        self.destination = destination;
        self
    }

    /// Adds an 802.1Q tag inside the existing ones.
    pub fn vlan(mut self, id: u16) -> Self {
        self.tags.push((0x8100, id));
        self
    }

    /// Adds an 802.1ad service tag. QinQ needs it outermost, so call it first.
    pub fn service_vlan(mut self, id: u16) -> Self {
        self.tags.push((0x88a8, id));
        self
    }

    /// Adds the virtio-net header of a TAP with `vnet_hdr`, which is not part of the frame.
    pub fn vnet_header(mut self) -> Self {
        self.vnet = Vnet::Plain;
        self
    }

    /// Makes a GSO frame: the virtio-net header asks for segments with this payload. Only for TCP and UDP.
    pub fn gso(mut self, segment: u16) -> Self {
        self.vnet = Vnet::Gso(segment);
        self
    }

    pub fn udp4(self, payload: usize) -> Vec<u8> {
        self.ipv4(udp(), payload)
    }

    pub fn tcp4(self, payload: usize) -> Vec<u8> {
        self.ipv4(tcp(), payload)
    }

    /// An echo request.
    pub fn icmp4(self, payload: usize) -> Vec<u8> {
        self.ipv4(icmp(ICMP), payload)
    }

    pub fn udp6(self, payload: usize) -> Vec<u8> {
        self.ipv6(udp(), payload, &[])
    }

    pub fn tcp6(self, payload: usize) -> Vec<u8> {
        self.ipv6(tcp(), payload, &[])
    }

    /// An echo request.
    pub fn icmp6(self, payload: usize) -> Vec<u8> {
        self.ipv6(icmp(ICMPV6), payload, &[])
    }

    /// Makes UDP behind a hop-by-hop extension header of 8 bytes.
    pub fn udp6_after_hop_by_hop(self, payload: usize) -> Vec<u8> {
        // The next header, no further eight bytes, and PadN over the remaining six.
        self.ipv6(udp(), payload, &[UDP, 0, 1, 4, 0, 0, 0, 0])
    }

    /// Makes an ARP request for the peer's address.
    pub fn arp(self) -> Vec<u8> {
        let mut packet = vec![0, 1, 0x08, 0x00, 6, 4, 0, 1];
        packet.extend(self.source);
        packet.extend(GUEST4);
        packet.extend([0; 6]);
        packet.extend(PEER4);
        self.finish(ARP, &packet, None)
    }

    /// Makes a payload of any other EtherType.
    pub fn other(self, ethertype: u16, payload: usize) -> Vec<u8> {
        self.finish(ethertype, &pattern(payload), None)
    }

    /// Makes a frame of this length without a known type, at least 14 bytes. A wire needs 60, a TAP does not.
    pub fn runt(self, length: usize) -> Vec<u8> {
        // An ethertype for local experiments.
        self.other(0x88b5, length - ETHERNET_HEADER)
    }

    fn ipv4(self, transport: Transport, payload: usize) -> Vec<u8> {
        let (from, to) = self.ends(GUEST4, PEER4);
        let body = transport.packet(payload, &from, &to, self.partial_checksum());
        let length = word(20 + body.len());
        let mut packet = vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, transport.protocol, 0, 0];
        packet.extend(from);
        packet.extend(to);
        let sum = (!fold(sum(&packet))).to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        packet.extend(body);
        self.finish(IPV4, &packet, Some((transport, 20)))
    }

    fn ipv6(self, transport: Transport, payload: usize, extension: &[u8]) -> Vec<u8> {
        let (from, to) = self.ends(GUEST6, PEER6);
        let body = transport.packet(payload, &from, &to, self.partial_checksum());
        let length = word(extension.len() + body.len());
        let next = if extension.is_empty() { transport.protocol } else { HOP_BY_HOP };
        let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], next, 64];
        packet.extend(from);
        packet.extend(to);
        packet.extend(extension);
        packet.extend(body);
        self.finish(IPV6, &packet, Some((transport, 40 + extension.len())))
    }

    fn ends<A>(&self, guest: A, peer: A) -> (A, A) {
        if self.source == GUEST { (guest, peer) } else { (peer, guest) }
    }

    fn partial_checksum(&self) -> bool {
        matches!(self.vnet, Vnet::Gso(_))
    }

    fn finish(self, ethertype: u16, packet: &[u8], transport: Option<(Transport, usize)>) -> Vec<u8> {
        let mut frame = self.vnet_bytes(ethertype, transport);
        frame.extend(self.destination);
        frame.extend(self.source);
        for (tpid, id) in &self.tags {
            frame.extend(tpid.to_be_bytes());
            frame.extend(id.to_be_bytes());
        }
        frame.extend(ethertype.to_be_bytes());
        frame.extend(packet);
        frame
    }

    /// `struct virtio_net_hdr`, in the byte order of the machine.
    fn vnet_bytes(&self, ethertype: u16, transport: Option<(Transport, usize)>) -> Vec<u8> {
        let segment = match self.vnet {
            Vnet::Absent => return Vec::new(),
            Vnet::Plain => return vec![0; VNET_HEADER],
            Vnet::Gso(segment) => segment,
        };
        let (transport, network) = transport.expect("only TCP and UDP over IP can be cut into segments");
        let kind = match (transport.protocol, ethertype) {
            (TCP, IPV4) => 1,
            (TCP, IPV6) => 4,
            (UDP, _) => 5,
            _ => panic!("only TCP and UDP over IP can be cut into segments"),
        };
        let before = ETHERNET_HEADER + 4 * self.tags.len() + network;
        let mut header = vec![NEEDS_CHECKSUM, kind];
        for field in [before + transport.header, segment.into(), before, transport.checksum_at] {
            header.extend((field as u16).to_ne_bytes());
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_sums_up_to_its_checksum() {
        // A sum over data and checksum is all ones (RFC 1071), with the pseudo header if there is one.
        let ip = &Frame::from_guest().udp4(33)[ETHERNET_HEADER..];
        assert_eq!(fold(sum(&ip[..20])), 0xffff);
        assert_eq!(fold(sum(&ip[12..]) + u32::from(UDP) + 8 + 33), 0xffff);
        let icmp = &Frame::to_guest().icmp4(5)[ETHERNET_HEADER + 20..];
        assert_eq!(fold(sum(icmp)), 0xffff);
        let ip = &Frame::from_guest().tcp6(100)[ETHERNET_HEADER..];
        assert_eq!(fold(sum(&ip[8..]) + u32::from(TCP) + 20 + 100), 0xffff);
        let ip = &Frame::from_guest().icmp6(1)[ETHERNET_HEADER..];
        assert_eq!(fold(sum(&ip[8..]) + u32::from(ICMPV6) + 8 + 1), 0xffff);
    }

    #[test]
    fn lengths_are_as_requested() {
        assert_eq!(Frame::from_guest().runt(14).len(), 14);
        assert_eq!(Frame::from_guest().runt(59).len(), 59);
        assert_eq!(Frame::from_guest().udp6_after_hop_by_hop(4).len(), 14 + 40 + 8 + 8 + 4);
        assert_eq!(Frame::from_guest().service_vlan(1).vlan(2).tcp4(0).len(), 14 + 8 + 40);
    }

    #[test]
    fn a_gso_frame_describes_its_segmentation() {
        let frame = Frame::from_guest().vlan(3).gso(1448).tcp4(20_000);
        let field = |at: usize| u16::from_ne_bytes([frame[at], frame[at + 1]]);
        assert_eq!((frame[0], frame[1]), (NEEDS_CHECKSUM, 1));
        assert_eq!((field(2), field(4), field(6), field(8)), (18 + 20 + 20, 1448, 18 + 20, 16));
        assert_eq!(frame.len(), VNET_HEADER + 18 + 20 + 20 + 20_000);
    }
}
