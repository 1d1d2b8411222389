//! Layout of the drop counters by the program on `kfree_skb`.

use super::Traffic;

/// Names as they stand in the eBPF object.
pub mod names {
    /// Program at the tracepoint [`TRACEPOINT`].
    pub const PROGRAM: &str = "frame_dropped";
    pub const TRACEPOINT: &str = "kfree_skb";
    /// `PERCPU_HASH` from [`DropKey`](super::DropKey) to [`DropCounts`](super::DropCounts). User space creates the
    /// entries; a device without one is not counted.
    pub const MAP_DROPS: &str = "DROPS";
    /// Global: [`Reasons`](super::Reasons).
    pub const GLOBAL_REASONS: &str = "REASONS";
}

/// The meaning of each drop reason of this kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reasons {
    /// The subsystem whose reasons all mean [`Self::QDISC`]; 0 when there is none.
    pub qdisc: u32,
    /// The meaning of each reason of the core.
    pub core: [u8; Self::CORE],
}

impl Reasons {
    /// Number of distinguished reasons of the core.
    pub const CORE: usize = 256;
    /// A reason that does not concern frames for a guest.
    pub const OTHER: u8 = 0;
    /// The ring of the device was full.
    pub const RING_FULL: u8 = 1;
    /// The queueing discipline or a later tc program dropped the frame: the device has never seen it.
    pub const QDISC: u8 = 2;
    /// A filter of the VMM on the device refused the frame.
    pub const FILTER: u8 = 3;
}

/// Key of a network device: an index needs its namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DropKey {
    /// Inode of the network namespace.
    pub netns: u32,
    pub ifindex: u32,
}

/// Dropped frames of one device on one CPU, in the device's units. Plain adds by the owning CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropCounts {
    pub ring_full: Traffic,
    pub qdisc: Traffic,
    pub filter: Traffic,
}

impl DropCounts {
    /// With the frames that another CPU has counted.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let plus = |one: Traffic, other| one.zip_with(other, u64::wrapping_add);
        Self {
            ring_full: plus(self.ring_full, other.ring_full),
            qdisc: plus(self.qdisc, other.qdisc),
            filter: plus(self.filter, other.filter),
        }
    }
}

const _: () = {
    assert!(size_of::<DropKey>() == 8);
    assert!(size_of::<DropCounts>() == 48);
    assert!(size_of::<Reasons>() == 4 + Reasons::CORE);
};
