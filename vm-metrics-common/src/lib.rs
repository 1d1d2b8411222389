//! The binary interface between the daemon and its eBPF programs.
//!
//! Everything here is `#[repr(C)]`, free of padding and checked at compile time. A change of layout or meaning is a new
//! [`ABI_VERSION`]: two versions never share a map.

#![no_std]

mod drops;
mod kernel;

pub use drops::{DropCounts, DropKey, Reasons, Volume, names as drop_names};
pub use kernel::{Layout, NAME as GLOBAL_LAYOUT};

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

/// Entries of the ifindex table, unless user space makes it smaller; a power of two, so that the index is a mask.
pub const TABLE_SIZE: u32 = 4096;

/// Interfaces that may share a table entry with another one before attaching fails.
pub const MAX_COLLISIONS: u32 = 1024;

/// One direction of one TAP on one CPU. Plain adds by the owning CPU, plain loads by the reader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionCounters {
    /// Frames as the kernel handles them: a GSO frame is one.
    pub packets: u64,
    /// Bytes of those frames, L2 header and VLAN tags included, as the device counts them.
    pub bytes: u64,
    /// Packets on the wire: a GSO frame counts as its segments.
    pub wire_packets: u64,
    /// Bytes of the packets on the wire: every segment has its own headers.
    pub wire_bytes: u64,
    pub ipv4: u64,
    pub ipv6: u64,
    pub arp: u64,
    /// Frames of any other EtherType.
    pub other_l3: u64,
    pub tcp: u64,
    pub udp: u64,
    /// ICMP and ICMPv6.
    pub icmp: u64,
    /// IP packets of any other protocol.
    pub other_l4: u64,
    pub unicast: u64,
    pub multicast: u64,
    pub broadcast: u64,
    /// Frames with a GSO size: more than one packet on the wire.
    pub gso: u64,
}

/// One TAP on one CPU: whole cache lines, so that two CPUs never write to the same one.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub ingress: DirectionCounters,
    pub egress: DirectionCounters,
    /// Addition to `egress` by segmentation, for GSO frames that the device does not take whole.
    pub egress_cut: Volume,
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
    assert!(size_of::<DirectionCounters>() == 128);
    assert!(size_of::<Counters>() == 320);
    assert!(align_of::<Counters>() == 64);
    assert!(size_of::<TableEntry>() == 8);
    assert!(TABLE_SIZE.is_power_of_two());
};

#[cfg(feature = "user")]
mod user {
    use super::{Counters, DropCounts, DropKey, Layout, Reasons, TableEntry};

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
}
