//! The binary interface between the daemon and its eBPF programs.
//!
//! Everything here is `#[repr(C)]`, free of padding and checked at compile time. A change of layout or meaning is a new
//! [`ABI_VERSION`]: two versions never share a map.

// The derived schema needs `std`; the programs have neither.
#![cfg_attr(not(feature = "schema"), no_std)]

mod drops;
mod kernel;
mod tasks;

pub use drops::{DropCounts, DropKey, Reasons, names as drop_names};
pub use kernel::{Layout, NAME as GLOBAL_LAYOUT};
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
    /// Global: the size of [`MAP_TABLE`], a power of two, less one.
    pub const GLOBAL_TABLE_MASK: &str = "TABLE_MASK";
}

/// Bits of the counters that can be off. `packets`, `bytes`, and `gso_packets` at egress are always on.
pub mod splits {
    /// By protocol and transport.
    pub const PROTOCOLS: u32 = 1 << 0;
    /// By destination.
    pub const DESTINATION: u32 = 1 << 1;
    /// Packets on the wire, and GSO.
    pub const WIRE: u32 = 1 << 2;
    pub const ALL: u32 = PROTOCOLS | DESTINATION | WIRE;
}

/// Entries of the ifindex table, unless user space makes it smaller; a power of two, so that the index is a mask.
pub const TABLE_SIZE: u32 = 4096;

/// Interfaces that may share a table entry with another one before attaching fails.
pub const MAX_COLLISIONS: u32 = 1024;

/// Counters of the programs for one direction of one device, since their attach.
///
/// The programs write it, and the daemon publishes it.
// A new counter is one field and one line of `zip_with`, through which all sums and differences go.
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
    /// Combines each counter of `self` and `other` by `of`.
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
    assert!(size_of::<Counters>() == 320);
    assert!(align_of::<Counters>() == 64);
    assert!(size_of::<TableEntry>() == 8);
    assert!(TABLE_SIZE.is_power_of_two());
};

#[cfg(feature = "user")]
mod user {
    use super::{Counters, DropCounts, DropKey, Layout, Reasons, TableEntry, TaskGroup, TaskLayout, TaskRun};

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
    // SAFETY: as above, in `kernel`.
    unsafe impl aya::Pod for Layout {}
    // SAFETY: as above, in `tasks`.
    unsafe impl aya::Pod for TaskGroup {}
    // SAFETY: as above, in `tasks`.
    unsafe impl aya::Pod for TaskLayout {}
    // SAFETY: as above, in `tasks`.
    unsafe impl aya::Pod for TaskRun {}
}
