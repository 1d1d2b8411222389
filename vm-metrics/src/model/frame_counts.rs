//! Counters of the frames of a device, from the kernel and from the eBPF programs.

#![warn(missing_docs)]

use serde::{Deserialize, Serialize};

use super::{DirectionStats, Traffic};

/// Frames of one direction since the creation of the device: whole Ethernet frames without check sequence and virtio-net
/// header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct FrameCounts {
    /// Bytes.
    pub bytes: Option<u64>,
    /// Packets of the host: a GSO frame is one.
    pub packets: Option<u64>,
    /// Dropped packets. For `rx`, the ring was full, or a filter of the VMM refused the packet.
    pub dropped: Option<u64>,
    /// Packets with an error of the device.
    pub errors: Option<u64>,
}

/// Counters of the programs on the device, since their attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct EbpfStats {
    /// Frames that the host offered to the guest, as they left the host's stack.
    pub rx: DirectionStats,
    /// Frames that the guest sent.
    pub tx: DirectionStats,
    /// The offered frames in the device's units: a GSO frame that it does not take whole counts as its segments. Each frame
    /// is received, dropped, or waits. `None` if the kernel segments frames and does not report which.
    pub offered: Option<Traffic>,
    /// Dropped by the device because its ring was full. `None` if the kernel does not report drops.
    pub dropped_ring_full: Option<Traffic>,
    /// Dropped by the device because a filter of the VMM refused the frame. `None` if the kernel does not report drops.
    pub dropped_filter: Option<Traffic>,
    /// Dropped before the device, by its queueing discipline or another tc program. `None` if the kernel does not report
    /// drops.
    pub dropped_qdisc: Option<Traffic>,
}

impl FrameCounts {
    /// Combines each count of `self` and `other` by `of`.
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
    /// Combines each direction of `self` and `other` by `direction`, and each amount by `traffic`.
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

    /// These counts; unknown ones are those of `before`, because the kernel may report drops in one tick and not in the
    /// next.
    pub(crate) fn or(now: Option<Self>, before: Option<Self>) -> Option<Self> {
        let (Some(now), Some(before)) = (now, before) else { return now.or(before) };
        Some(now.zip_with(before, |now, _| now, Option::or))
    }
}
