//! Counters of the frames of a device, from the kernel and from the eBPF programs.

#![warn(missing_docs)]

use serde::{Deserialize, Serialize};
use vm_metrics_common::Splits;

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

/// Counters of the programs on the device, since their attach. Those that are off are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct EbpfStats<S = Option<u64>> {
    /// Frames that the host offered to the guest, as they left the host's stack.
    #[serde(default)]
    pub rx: DirectionStats<S>,
    /// Frames that the guest sent.
    #[serde(default)]
    pub tx: DirectionStats<S>,
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

impl<S: Copy> EbpfStats<S> {
    /// Combines each direction of `self` and `other` by `direction`, and each amount by `traffic`.
    pub(crate) fn zip_with(
        self,
        other: Self,
        direction: impl Fn(DirectionStats<S>, DirectionStats<S>) -> DirectionStats<S>,
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

impl EbpfStats<u64> {
    /// With the counters that are on; the others are unknown.
    pub(crate) fn known(self, splits: Splits) -> EbpfStats {
        let Self { rx, tx, offered, dropped_ring_full, dropped_filter, dropped_qdisc } = self;
        let known = |stats: DirectionStats| {
            stats.zip_with(splits.mask(), |always, _| always, |count, is_on| is_on.then_some(count))
        };
        EbpfStats { rx: known(rx), tx: known(tx), offered, dropped_ring_full, dropped_filter, dropped_qdisc }
    }
}
