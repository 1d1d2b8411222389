//! What a device has counted since its birth, whoever had it: the cumulative of which each owner is given a part.

use serde::{Deserialize, Serialize};

use crate::model::{EbpfStats, FrameCounts, PacketMix, Volume};

/// Guest perspective.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(in crate::manager) struct Totals {
    pub(in crate::manager) rx: FrameCounts,
    pub(in crate::manager) tx: FrameCounts,
    /// Since the programs were attached.
    pub(in crate::manager) ebpf: Option<EbpfStats>,
}

impl Totals {
    /// What has come since `offset`.
    pub(super) fn since(&self, offset: &Self) -> Self {
        Self {
            rx: frames_since(&self.rx, &offset.rx),
            tx: frames_since(&self.tx, &offset.tx),
            ebpf: self.ebpf.map(|now| match offset.ebpf {
                Some(offset) => EbpfStats {
                    rx: mix_since(&now.rx, &offset.rx),
                    tx: mix_since(&now.tx, &offset.tx),
                    offered: volume_since(now.offered, offset.offered),
                    dropped_ring_full: volume_since(now.dropped_ring_full, offset.dropped_ring_full),
                    dropped_filter: volume_since(now.dropped_filter, offset.dropped_filter),
                    dropped_qdisc: volume_since(now.dropped_qdisc, offset.dropped_qdisc),
                },
                None => now,
            }),
        }
    }

    /// These, and where something could not be read what it was before.
    pub(super) fn or(&self, before: &Self) -> Self {
        Self {
            rx: frames_or(&self.rx, &before.rx),
            tx: frames_or(&self.tx, &before.tx),
            ebpf: ebpf_or(self.ebpf, before.ebpf),
        }
    }
}

/// What the kernel tells in one tick it may not tell in the next.
pub(in crate::manager) fn ebpf_or(now: Option<EbpfStats>, before: Option<EbpfStats>) -> Option<EbpfStats> {
    let (Some(now), Some(before)) = (now, before) else { return now.or(before) };
    Some(EbpfStats {
        offered: now.offered.or(before.offered),
        dropped_ring_full: now.dropped_ring_full.or(before.dropped_ring_full),
        dropped_filter: now.dropped_filter.or(before.dropped_filter),
        dropped_qdisc: now.dropped_qdisc.or(before.dropped_qdisc),
        ..now
    })
}

/// The device itself counts less than before: it is another one.
pub(super) fn decreased(now: &FrameCounts, before: &FrameCounts) -> bool {
    let decreased =
        |now: Option<u64>, before: Option<u64>| now.zip(before).is_some_and(|(now, before)| now < before);
    decreased(now.bytes, before.bytes) || decreased(now.packets, before.packets)
}

/// The programs count less than before: they were attached anew and count from 0.
pub(super) fn counts_anew(now: &EbpfStats, before: &EbpfStats) -> bool {
    now.rx.packets < before.rx.packets || now.tx.packets < before.tx.packets
}

fn frames_since(now: &FrameCounts, offset: &FrameCounts) -> FrameCounts {
    let since = |now: Option<u64>, offset: Option<u64>| Some(now?.saturating_sub(offset.unwrap_or(0)));
    FrameCounts {
        bytes: since(now.bytes, offset.bytes),
        packets: since(now.packets, offset.packets),
        dropped: since(now.dropped, offset.dropped),
        errors: since(now.errors, offset.errors),
    }
}

fn volume_since(now: Option<Volume>, offset: Option<Volume>) -> Option<Volume> {
    let (now, offset) = (now?, offset.unwrap_or_default());
    Some(Volume {
        packets: now.packets.saturating_sub(offset.packets),
        bytes: now.bytes.saturating_sub(offset.bytes),
    })
}

fn frames_or(now: &FrameCounts, before: &FrameCounts) -> FrameCounts {
    FrameCounts {
        bytes: now.bytes.or(before.bytes),
        packets: now.packets.or(before.packets),
        dropped: now.dropped.or(before.dropped),
        errors: now.errors.or(before.errors),
    }
}

fn mix_since(now: &PacketMix, offset: &PacketMix) -> PacketMix {
    let since = u64::saturating_sub;
    PacketMix {
        bytes: since(now.bytes, offset.bytes),
        packets: since(now.packets, offset.packets),
        wire_packets: since(now.wire_packets, offset.wire_packets),
        wire_bytes: since(now.wire_bytes, offset.wire_bytes),
        gso_packets: since(now.gso_packets, offset.gso_packets),
        ipv4: since(now.ipv4, offset.ipv4),
        ipv6: since(now.ipv6, offset.ipv6),
        arp: since(now.arp, offset.arp),
        other_l3: since(now.other_l3, offset.other_l3),
        tcp: since(now.tcp, offset.tcp),
        udp: since(now.udp, offset.udp),
        icmp: since(now.icmp, offset.icmp),
        other_l4: since(now.other_l4, offset.other_l4),
        unicast: since(now.unicast, offset.unicast),
        multicast: since(now.multicast, offset.multicast),
        broadcast: since(now.broadcast, offset.broadcast),
    }
}
