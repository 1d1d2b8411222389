//! What a device has counted since its birth, whoever had it: the line of which each owner is given a part.

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
    /// What has come since `origin`.
    pub(super) fn since(&self, origin: &Self) -> Self {
        Self {
            rx: frames_since(&self.rx, &origin.rx),
            tx: frames_since(&self.tx, &origin.tx),
            ebpf: self.ebpf.map(|now| match origin.ebpf {
                Some(origin) => EbpfStats {
                    rx: mix_since(&now.rx, &origin.rx),
                    tx: mix_since(&now.tx, &origin.tx),
                    offered: volume_since(now.offered, origin.offered),
                    dropped_ring_full: volume_since(now.dropped_ring_full, origin.dropped_ring_full),
                    dropped_filter: volume_since(now.dropped_filter, origin.dropped_filter),
                    dropped_qdisc: volume_since(now.dropped_qdisc, origin.dropped_qdisc),
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
pub(super) fn fell(now: &FrameCounts, before: &FrameCounts) -> bool {
    let fell =
        |now: Option<u64>, before: Option<u64>| now.zip(before).is_some_and(|(now, before)| now < before);
    fell(now.bytes, before.bytes) || fell(now.packets, before.packets)
}

/// The programs count less than before: they were attached anew and count from 0.
pub(super) fn counts_anew(now: &EbpfStats, before: &EbpfStats) -> bool {
    now.rx.packets < before.rx.packets || now.tx.packets < before.tx.packets
}

fn frames_since(now: &FrameCounts, origin: &FrameCounts) -> FrameCounts {
    let since = |now: Option<u64>, origin: Option<u64>| Some(now?.saturating_sub(origin.unwrap_or(0)));
    FrameCounts {
        bytes: since(now.bytes, origin.bytes),
        packets: since(now.packets, origin.packets),
        dropped: since(now.dropped, origin.dropped),
        errors: since(now.errors, origin.errors),
    }
}

fn volume_since(now: Option<Volume>, origin: Option<Volume>) -> Option<Volume> {
    let (now, origin) = (now?, origin.unwrap_or_default());
    Some(Volume {
        packets: now.packets.saturating_sub(origin.packets),
        bytes: now.bytes.saturating_sub(origin.bytes),
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

fn mix_since(now: &PacketMix, origin: &PacketMix) -> PacketMix {
    let since = u64::saturating_sub;
    PacketMix {
        bytes: since(now.bytes, origin.bytes),
        packets: since(now.packets, origin.packets),
        wire_packets: since(now.wire_packets, origin.wire_packets),
        wire_bytes: since(now.wire_bytes, origin.wire_bytes),
        gso_packets: since(now.gso_packets, origin.gso_packets),
        ipv4: since(now.ipv4, origin.ipv4),
        ipv6: since(now.ipv6, origin.ipv6),
        arp: since(now.arp, origin.arp),
        other_l3: since(now.other_l3, origin.other_l3),
        tcp: since(now.tcp, origin.tcp),
        udp: since(now.udp, origin.udp),
        icmp: since(now.icmp, origin.icmp),
        other_l4: since(now.other_l4, origin.other_l4),
        unicast: since(now.unicast, origin.unicast),
        multicast: since(now.multicast, origin.multicast),
        broadcast: since(now.broadcast, origin.broadcast),
    }
}
