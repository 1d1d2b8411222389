//! The binary interface between the daemon and its eBPF programs.
//!
//! Everything here is `#[repr(C)]`, free of padding and checked at compile time. A change of layout or meaning is a new
//! [`ABI_VERSION`]: two versions never share a map.

// The derived schema needs `std`; the programs have neither.
#![cfg_attr(not(feature = "schema"), no_std)]

mod drops;
mod kernel;
mod stats;

pub use drops::{DropCounts, DropKey, Reasons, names as drop_names};
pub use kernel::{Layout, NAME as GLOBAL_LAYOUT};
pub use stats::{DirectionStats, Traffic};

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
