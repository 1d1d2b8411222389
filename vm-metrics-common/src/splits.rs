//! The counters of the programs that can be off.

use super::DirectionStats;

/// The counters that are on: bits of groups. Packets, bytes, and GSO frames at egress always count.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Splits(u32);

impl Splits {
    pub const NONE: Self = Self(0);
    /// By network protocol and transport.
    pub const PROTOCOLS: Self = Self(1);
    /// By destination.
    pub const DESTINATION: Self = Self(2);
    /// Packets on the wire, and GSO.
    pub const WIRE: Self = Self(4);
    pub const ALL: Self = Self(7);

    /// Whether one of these is on.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, one_of: Self) -> bool {
        self.0 & one_of.0 != 0
    }

    /// With these, too.
    #[must_use]
    pub const fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// Whether each counter is on.
    #[must_use]
    pub const fn mask(self) -> DirectionStats<bool> {
        let (protocols, destination, wire) =
            (self.has(Self::PROTOCOLS), self.has(Self::DESTINATION), self.has(Self::WIRE));
        DirectionStats {
            packets: 0,
            bytes: 0,
            wire_packets: wire,
            wire_bytes: wire,
            ipv4: protocols,
            ipv6: protocols,
            arp: protocols,
            other_l3: protocols,
            tcp: protocols,
            udp: protocols,
            icmp: protocols,
            other_l4: protocols,
            unicast: destination,
            multicast: destination,
            broadcast: destination,
            gso_packets: wire,
        }
    }
}

impl Default for Splits {
    fn default() -> Self {
        Self::ALL
    }
}
