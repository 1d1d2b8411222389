//! The binary interface between the daemon and its eBPF programs.
//!
//! Everything here is `#[repr(C)]`, free of padding and checked at compile time. A change of layout or meaning is a new
//! [`ABI_VERSION`]: two versions never share a map.

// The derived schema needs `std`; the programs have neither.
#![cfg_attr(not(feature = "schema"), no_std)]

mod drops;
mod kernel;
mod splits;
mod tasks;

pub use drops::{DropCounts, DropKey, Reasons, names as drop_names};
pub use kernel::{Layout, NAME as GLOBAL_LAYOUT};
pub use splits::Splits;
pub use tasks::{SumLayout, TaskGroup, TaskLayout, TaskPages, TaskRun, TaskSums, names as task_names};

/// Version of the layout and meaning of everything in this crate.
pub const ABI_VERSION: u32 = 3;

/// Names as they stand in the eBPF object.
pub mod names {
    /// Program at tc ingress of a TAP: the guest's output.
    pub const PROGRAM_INGRESS: &str = "tap_ingress";
    /// Program at tc egress of a TAP: frames that the host offers to the guest.
    pub const PROGRAM_EGRESS: &str = "tap_egress";
    /// `ARRAY` of [`Counters`](super::Counters), memory-mapped: entry `slot * possible_cpus + cpu`.
    pub const MAP_COUNTERS: &str = "COUNTERS";
    /// `ARRAY` of [`TableEntry`](super::TableEntry), indexed by `ifindex % size`.
    pub const MAP_TABLE: &str = "TABLE";
    /// `HASH` from ifindex to slot, for interfaces whose table entry belongs to another one.
    pub const MAP_COLLISIONS: &str = "COLLISIONS";
    /// `ARRAY` of one `u64`: frames seen on an interface that has no slot.
    pub const MAP_UNKNOWN: &str = "UNKNOWN";
    /// Global: number of possible CPUs, the stride of [`MAP_COUNTERS`].
    pub const GLOBAL_CPUS: &str = "POSSIBLE_CPUS";
    /// Global: [`Splits`](super::Splits).
    pub const GLOBAL_SPLITS: &str = "SPLITS";
    /// Global: the size of [`MAP_TABLE`], a power of two, less one.
    pub const GLOBAL_TABLE_MASK: &str = "TABLE_MASK";
}

/// Entries of the ifindex table, unless user space makes it smaller; a power of two, so that the index is a mask.
pub const TABLE_SIZE: u32 = 4096;

/// Interfaces that may share a table entry with another one before attaching fails.
pub const MAX_COLLISIONS: u32 = 1024;

/// Counters of the programs for one direction of one device, since their attach.
///
/// The programs write it, and the daemon publishes it: `null` stands for a counter that is off.
// A new counter is one field, one line of `zip_with`, through which all sums and differences go, and one of `Splits::mask`.
// It has `serde(default)`, because the saved state of a daemon before lacks it.
// Plain adds by the owning CPU, plain loads by the reader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DirectionStats<S = u64> {
    /// Frames as the kernel handles them: a GSO frame is one.
    #[cfg_attr(feature = "serde", serde(default))]
    pub packets: u64,
    /// Bytes of those frames, L2 header and VLAN tags included, as the device counts them.
    #[cfg_attr(feature = "serde", serde(default))]
    pub bytes: u64,
    /// Packets that the wire would carry: a GSO frame counts as its segments.
    #[cfg_attr(feature = "schema", schema(value_type = Option<u64>))]
    pub wire_packets: S,
    /// Bytes of the packets that the wire would carry: every segment has its own headers.
    #[cfg_attr(feature = "schema", schema(value_type = Option<u64>))]
    pub wire_bytes: S,
    /// Frames with IPv4.
    #[cfg_attr(feature = "schema", schema(value_type = Option<u64>))]
    pub ipv4: S,
    /// Frames with IPv6.
    #[cfg_attr(feature = "schema", schema(value_type = Option<u64>))]
    pub ipv6: S,
    /// Frames with ARP.
    #[cfg_attr(feature = "schema", schema(value_type = Option<u64>))]
    pub arp: S,
    /// Frames of any other EtherType.
    #[cfg_attr(feature = "schema", schema(value_type = Option<u64>))]
    pub other_l3: S,
    /// IP packets with TCP.
    #[cfg_attr(feature = "schema", schema(value_type = Option<u64>))]
    pub tcp: S,
    /// IP packets with UDP.
    #[cfg_attr(feature = "schema", schema(value_type = Option<u64>))]
    pub udp: S,
    /// IP packets with ICMP or ICMPv6.
    #[cfg_attr(feature = "schema", schema(value_type = Option<u64>))]
    pub icmp: S,
    /// IP packets of any other protocol.
    #[cfg_attr(feature = "schema", schema(value_type = Option<u64>))]
    pub other_l4: S,
    /// Frames to one address.
    #[cfg_attr(feature = "schema", schema(value_type = Option<u64>))]
    pub unicast: S,
    /// Frames to a group.
    #[cfg_attr(feature = "schema", schema(value_type = Option<u64>))]
    pub multicast: S,
    /// Frames to all.
    #[cfg_attr(feature = "schema", schema(value_type = Option<u64>))]
    pub broadcast: S,
    /// Frames with a GSO size: more than one packet on the wire.
    #[cfg_attr(feature = "schema", schema(value_type = Option<u64>))]
    pub gso_packets: S,
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

impl<S> DirectionStats<S> {
    /// Combines each counter of `self` and `other` by `always`, or by `split` if it can be off.
    #[must_use]
    pub fn zip_with<O, R>(
        self,
        other: DirectionStats<O>,
        always: impl Fn(u64, u64) -> u64,
        split: impl Fn(S, O) -> R,
    ) -> DirectionStats<R> {
        DirectionStats {
            packets: always(self.packets, other.packets),
            bytes: always(self.bytes, other.bytes),
            wire_packets: split(self.wire_packets, other.wire_packets),
            wire_bytes: split(self.wire_bytes, other.wire_bytes),
            ipv4: split(self.ipv4, other.ipv4),
            ipv6: split(self.ipv6, other.ipv6),
            arp: split(self.arp, other.arp),
            other_l3: split(self.other_l3, other.other_l3),
            tcp: split(self.tcp, other.tcp),
            udp: split(self.udp, other.udp),
            icmp: split(self.icmp, other.icmp),
            other_l4: split(self.other_l4, other.other_l4),
            unicast: split(self.unicast, other.unicast),
            multicast: split(self.multicast, other.multicast),
            broadcast: split(self.broadcast, other.broadcast),
            gso_packets: split(self.gso_packets, other.gso_packets),
        }
    }
}

impl Traffic {
    /// Combines each count of `self` and `other` by `of`.
    #[must_use]
    pub fn zip_with(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self { packets: of(self.packets, other.packets), bytes: of(self.bytes, other.bytes) }
    }
}

/// One TAP on one CPU: whole cache lines, so that two CPUs never write to the same one.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub ingress: DirectionStats,
    pub egress: DirectionStats,
    /// Addition to `egress` by segmentation, for GSO frames that the device does not take whole.
    pub egress_segmented: Traffic,
    /// Up to whole cache lines; always 0.
    pub reserved: [u64; 6],
}

/// The slot of an interface's counters. All zero means free: no interface has index 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableEntry {
    /// The interface of this entry. Another one with the same index modulo the size is in the hash.
    pub ifindex: u32,
    pub slot: u32,
}

const _: () = {
    assert!(size_of::<DirectionStats>() == 128);
    assert!(size_of::<Traffic>() == 16);
    assert!(size_of::<Splits>() == 4);
    assert!(size_of::<Counters>() == 320);
    assert!(align_of::<Counters>() == 64);
    assert!(size_of::<TableEntry>() == 8);
    assert!(TABLE_SIZE.is_power_of_two());
};

#[cfg(feature = "user")]
mod user {
    use super::{
        Counters, DropCounts, DropKey, Layout, Reasons, Splits, TableEntry, TaskGroup, TaskLayout, TaskRun,
    };

    // SAFETY: repr(C), no padding (asserted above), every bit pattern is a value.
    unsafe impl aya::Pod for Counters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for TableEntry {}
    // SAFETY: as above, in `drops`.
    unsafe impl aya::Pod for DropKey {}
    // SAFETY: as above, in `drops`.
    unsafe impl aya::Pod for DropCounts {}
    // SAFETY: as above, in `drops`.
    unsafe impl aya::Pod for Reasons {}
    // SAFETY: as above, in `splits`.
    unsafe impl aya::Pod for Splits {}
    // SAFETY: as above, in `kernel`.
    unsafe impl aya::Pod for Layout {}
    // SAFETY: as above, in `tasks`.
    unsafe impl aya::Pod for TaskGroup {}
    // SAFETY: as above, in `tasks`.
    unsafe impl aya::Pod for TaskLayout {}
    // SAFETY: as above, in `tasks`.
    unsafe impl aya::Pod for TaskRun {}
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    /// Maps of another layout under the same version would be adopted: each list of counters has its version.
    #[test]
    fn counters_of_a_version_have_one_layout() {
        let fields = std::format!("{:?}", DirectionStats::<u8>::default()).replace(": 0", "");
        let expected = "DirectionStats { packets, bytes, wire_packets, wire_bytes, ipv4, ipv6, arp, other_l3, tcp, udp, icmp, other_l4, unicast, multicast, broadcast, gso_packets }";
        assert_eq!((ABI_VERSION, fields.as_str()), (3, expected));
    }
}
