//! Turns the host's view of a device into the guest's, here and nowhere else.

use vm_metrics_common::DropCounts;

use crate::model::{DirectionStats, EbpfReading, EbpfStats, FrameCounts, NicKind, TapStats, Traffic};

/// Both directions, as the guest sees them.
#[derive(Default)]
pub(super) struct GuestView<T> {
    pub(super) rx: T,
    pub(super) tx: T,
}

/// Turns the directions of a TAP: the host receives what the guest sends.
///
/// A macvtap is the guest's own port on the network below, so its directions are the guest's.
fn guest_view<T>(kind: NicKind, host_rx: T, host_tx: T) -> GuestView<T> {
    match kind {
        NicKind::Tap => GuestView { rx: host_tx, tx: host_rx },
        NicKind::Macvtap => GuestView { rx: host_rx, tx: host_tx },
    }
}

/// Whether the programs count exactly the frames that the guest sends.
///
/// On a macvtap, tc egress also sees frames that are dropped afterwards.
pub(super) fn counts_sent_frames(kind: NicKind) -> bool {
    kind == NicKind::Tap
}

/// The programs' count of frames that the guest sent, where it is exact.
pub(super) fn sent_by_ebpf(kind: NicKind, ebpf: Option<&EbpfReading>) -> Option<DirectionStats> {
    let ebpf = ebpf.filter(|_| counts_sent_frames(kind))?;
    Some(guest_view(kind, ebpf.counters.ingress, ebpf.counters.egress).tx)
}

/// The counts of a device since its birth, received and sent.
pub(super) fn counts_of(kind: NicKind, stats: &TapStats) -> (FrameCounts, FrameCounts) {
    let GuestView { rx, tx } = device_counts(kind, stats);
    (rx, tx)
}

pub(super) fn device_counts(kind: NicKind, stats: &TapStats) -> GuestView<FrameCounts> {
    let host_rx = FrameCounts {
        bytes: Some(stats.rx_bytes),
        packets: Some(stats.rx_packets),
        dropped: Some(stats.rx_dropped),
        errors: Some(stats.rx_errors),
    };
    let host_tx = FrameCounts {
        bytes: Some(stats.tx_bytes),
        packets: Some(stats.tx_packets),
        dropped: Some(stats.tx_dropped),
        errors: Some(stats.tx_errors),
    };
    guest_view(kind, host_rx, host_tx)
}

pub(super) fn ebpf_stats(kind: NicKind, ebpf: &EbpfReading, drops: Option<DropCounts>) -> EbpfStats<u64> {
    let counted = guest_view(kind, ebpf.counters.ingress, ebpf.counters.egress);
    // Only frames that leave the host by a TAP are segmented behind the programs.
    let (extra, is_known) = match kind {
        NicKind::Tap => {
            (ebpf.counters.egress_segmented, ebpf.knows_segmentation || counted.rx.gso_packets == 0)
        }
        NicKind::Macvtap => (Traffic::default(), true),
    };
    let (packets, bytes) = (counted.rx.packets + extra.packets, counted.rx.bytes + extra.bytes);
    EbpfStats {
        rx: counted.rx,
        tx: counted.tx,
        offered: is_known.then_some(Traffic { packets, bytes }),
        dropped_ring_full: drops.map(|drops| drops.ring_full),
        dropped_filter: drops.map(|drops| drops.filter),
        dropped_qdisc: drops.map(|drops| drops.qdisc),
    }
}
