//! Counters of the frames of a device, from the kernel and from the eBPF programs.

#![warn(missing_docs)]

use serde::{Deserialize, Serialize};

use super::{DirectionStats, Traffic};

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
