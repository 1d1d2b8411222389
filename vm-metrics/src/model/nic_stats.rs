//! Numbers of a network interface of a VM. They are the **guest's**: rx is what it receives, tx what it sends.

#![warn(missing_docs)]

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{DirectionStats, EarlierCounts, NicSince, Traffic};

/// One network interface of a VM.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct NicStats {
    /// Name of the TAP on the host.
    pub device: String,
    /// The inode of the network namespace of the device, when it is not the daemon's.
    pub netns: Option<u64>,
    /// The interface index of the device; `None` when it was not read.
    pub ifindex: Option<u32>,
    /// What the device is.
    pub kind: NicKind,
    /// Where `rx` and `tx` come from.
    pub source: NicSource,
    /// How the programs hang on it.
    pub attach: AttachMode,
    /// When this VM came to have the device, in seconds of Unix time; `None` when that was before the first look.
    pub start_time: Option<f64>,
    /// What the guest took.
    pub rx: FrameCounts,
    /// What the guest sent.
    pub tx: FrameCounts,
    /// The device's count of the bytes that the guest sent, less the published one; `None` when there is one count only.
    pub mismatch_bytes: Option<i64>,
    /// What only the eBPF programs see; `None` when they are not on this TAP.
    pub ebpf: Option<EbpfStats>,
    /// Packets that wait for the guest, in the ring or in the queueing discipline: what was offered, less what the guest
    /// took and what was dropped. While traffic flows, also what came between the readings.
    pub rx_backlog_packets: Option<u64>,
    /// Their bytes; `None` also where the kernel does not tell of drops.
    pub rx_backlog_bytes: Option<u64>,
    /// Packets of `rx.dropped` whose reason is not known: the kernel has not told it. `None` where that cannot be said.
    pub rx_dropped_by_device: Option<u64>,
    /// Packets for the guest that the programs did not see: before they were attached, or while they were off. `ebpf`
    /// lacks them, `rx` does not.
    pub rx_gap_packets: Option<u64>,
    /// The same of packets that the guest sent; `tx` has them.
    pub tx_gap_packets: Option<u64>,
    /// What the devices have counted that the VM had under this name before; `None` when this is the first. The metrics
    /// contain it, the numbers above do not.
    pub earlier: Option<EarlierCounts>,
    /// The VM does not have it any more: its last numbers are shown for a while.
    pub gone: bool,
    /// Since when its counters, with the `earlier` ones, count from 0.
    #[serde(skip)]
    pub since: NicSince,
}

/// Frames of one direction, since the device was made: whole Ethernet frames without check sequence and virtio-net header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct FrameCounts {
    /// Bytes.
    pub bytes: Option<u64>,
    /// Packets of the host: a GSO frame is one.
    pub packets: Option<u64>,
    /// Packets. Of `rx`: those that found the ring full or that the VMM's filter refused.
    pub dropped: Option<u64>,
    /// Packets that the device could not take.
    pub errors: Option<u64>,
}

/// What the programs on the device count, since they were attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct EbpfStats {
    /// What the host offered to the guest, as it left the host's stack.
    pub rx: DirectionStats,
    /// What the guest sent.
    pub tx: DirectionStats,
    /// The same as the device counts it: a GSO frame that it does not take whole is its segments. Each frame is taken by
    /// the guest, dropped, or waits. `None` when the kernel cut frames and does not tell which.
    pub offered: Option<Traffic>,
    /// Dropped by the device, for its ring was full. `None` where the kernel does not tell of drops.
    pub dropped_ring_full: Option<Traffic>,
    /// Dropped by the device, for a filter of the VMM's refused the frame. `None` where the kernel does not tell of drops.
    pub dropped_filter: Option<Traffic>,
    /// Dropped before the device saw them, by its queueing discipline or another tc program. `None` where the kernel does
    /// not tell of drops.
    pub dropped_qdisc: Option<Traffic>,
}

/// Where a NIC's numbers come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum NicSource {
    /// The programs on the TAP, continued from the device's counters.
    Ebpf,
    /// The device's counters, over netlink.
    Netlink,
    /// The device's counters, from sysfs.
    Sysfs,
    /// The device's counters, from `/proc/<pid>/net/dev` of a process in its network namespace.
    Procfs,
    /// Nothing could be read.
    #[default]
    None,
}

/// What kind of device a NIC is on the host. It decides which of the device's directions is which of the guest's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum NicKind {
    /// What the guest sends comes out of it, as if received.
    #[default]
    Tap,
    /// What the guest sends goes out through it to the network below, as sent.
    Macvtap,
}

/// How the programs hang on a TAP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// A TCX link, at the head of the chain.
    Tcx,
    /// A direct-action filter of a clsact qdisc.
    Clsact,
    /// Not at all.
    #[default]
    None,
}

impl FrameCounts {
    /// Each count is `of` the two that it is in `self` and `other`.
    pub(crate) fn zip_with(self, other: Self, of: impl Fn(Option<u64>, Option<u64>) -> Option<u64>) -> Self {
        Self {
            bytes: of(self.bytes, other.bytes),
            packets: of(self.packets, other.packets),
            dropped: of(self.dropped, other.dropped),
            errors: of(self.errors, other.errors),
        }
    }
}

impl EbpfStats {
    /// Each direction is `direction`, and each amount `traffic`, of the two that it is in `self` and `other`.
    pub(crate) fn zip_with(
        self,
        other: Self,
        direction: impl Fn(DirectionStats, DirectionStats) -> DirectionStats,
        traffic: impl Fn(Option<Traffic>, Option<Traffic>) -> Option<Traffic>,
    ) -> Self {
        Self {
            rx: direction(self.rx, other.rx),
            tx: direction(self.tx, other.tx),
            offered: traffic(self.offered, other.offered),
            dropped_ring_full: traffic(self.dropped_ring_full, other.dropped_ring_full),
            dropped_filter: traffic(self.dropped_filter, other.dropped_filter),
            dropped_qdisc: traffic(self.dropped_qdisc, other.dropped_qdisc),
        }
    }

    /// These, and `before` where something is not known: the kernel may tell it in one tick and not in the next.
    pub(crate) fn or(now: Option<Self>, before: Option<Self>) -> Option<Self> {
        let (Some(now), Some(before)) = (now, before) else { return now.or(before) };
        Some(now.zip_with(before, |now, _| now, Option::or))
    }
}

impl NicSource {
    /// As it is in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Netlink => "netlink",
            Self::Sysfs => "sysfs",
            Self::Procfs => "procfs",
            Self::None => "none",
        }
    }
}

impl NicKind {
    /// As it is in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Macvtap => "macvtap",
        }
    }
}

impl AttachMode {
    /// As it is in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::None => "none",
        }
    }
}

impl fmt::Display for NicSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
