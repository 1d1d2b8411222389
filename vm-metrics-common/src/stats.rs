//! Counts that the programs keep in their maps, and that the daemon publishes.
//!
//! A new counter of [`DirectionStats`] is one field and one line of [`DirectionStats::zip_with`], which does not compile
//! without it. All that adds, subtracts or compares goes through there.

/// One direction of one device as the programs saw it, since they were attached.
// Plain adds by the owning CPU, plain loads by the reader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize), serde(default))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DirectionStats {
    /// Frames as the kernel handles them: a GSO frame is one.
    pub packets: u64,
    /// Bytes of those frames, L2 header and VLAN tags included, as the device counts them.
    pub bytes: u64,
    /// Packets that the wire would carry: a GSO frame counts as its segments.
    pub wire_packets: u64,
    /// Bytes of the packets that the wire would carry: every segment has its own headers.
    pub wire_bytes: u64,
    /// Frames with IPv4.
    pub ipv4: u64,
    /// Frames with IPv6.
    pub ipv6: u64,
    /// Frames with ARP.
    pub arp: u64,
    /// Frames of any other EtherType.
    pub other_l3: u64,
    /// IP packets with TCP.
    pub tcp: u64,
    /// IP packets with UDP.
    pub udp: u64,
    /// IP packets with ICMP or ICMPv6.
    pub icmp: u64,
    /// IP packets of any other protocol.
    pub other_l4: u64,
    /// Frames to one address.
    pub unicast: u64,
    /// Frames to a group.
    pub multicast: u64,
    /// Frames to all.
    pub broadcast: u64,
    /// Frames with a GSO size: more than one packet on the wire.
    pub gso_packets: u64,
}

/// Frames and their bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize), serde(default))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Traffic {
    /// Frames.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl DirectionStats {
    /// Each counter is `of` the two that it is in `self` and `other`.
    #[must_use]
    pub fn zip_with(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            packets: of(self.packets, other.packets),
            bytes: of(self.bytes, other.bytes),
            wire_packets: of(self.wire_packets, other.wire_packets),
            wire_bytes: of(self.wire_bytes, other.wire_bytes),
            ipv4: of(self.ipv4, other.ipv4),
            ipv6: of(self.ipv6, other.ipv6),
            arp: of(self.arp, other.arp),
            other_l3: of(self.other_l3, other.other_l3),
            tcp: of(self.tcp, other.tcp),
            udp: of(self.udp, other.udp),
            icmp: of(self.icmp, other.icmp),
            other_l4: of(self.other_l4, other.other_l4),
            unicast: of(self.unicast, other.unicast),
            multicast: of(self.multicast, other.multicast),
            broadcast: of(self.broadcast, other.broadcast),
            gso_packets: of(self.gso_packets, other.gso_packets),
        }
    }
}

impl Traffic {
    /// Each count is `of` the two that it is in `self` and `other`.
    #[must_use]
    pub fn zip_with(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self { packets: of(self.packets, other.packets), bytes: of(self.bytes, other.bytes) }
    }
}

const _: () = {
    assert!(size_of::<DirectionStats>() == 128);
    assert!(size_of::<Traffic>() == 16);
};
