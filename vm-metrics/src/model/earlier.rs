//! What devices have counted that a VM had under one name before the one that it has now.

#![warn(missing_docs)]

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{EbpfStats, FrameCounts, NicStats, PacketMix, Volume};

/// Counts of all of them together, up to the end of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct EarlierCounts {
    /// What the guest took.
    pub rx: FrameCounts,
    /// What the guest sent.
    pub tx: FrameCounts,
    /// What only the eBPF programs saw.
    pub ebpf: Option<EbpfStats>,
    /// Packets for the guest that the devices dropped for a reason that is not known.
    pub rx_dropped_by_device: Option<u64>,
    /// Packets for the guest that the programs did not see.
    pub rx_gap_packets: Option<u64>,
    /// The same of packets that the guest sent.
    pub tx_gap_packets: Option<u64>,
}

impl EarlierCounts {
    /// What this device has counted.
    pub(crate) fn of(nic: &NicStats) -> Self {
        let NicStats { rx, tx, ebpf, rx_dropped_by_device, rx_gap_packets, tx_gap_packets, .. } = *nic;
        Self { rx, tx, ebpf, rx_dropped_by_device, rx_gap_packets, tx_gap_packets }
    }

    /// These, and where something is not known what it was before.
    pub(crate) fn or(&self, before: &Self) -> Self {
        Self {
            rx: frames(self.rx, before.rx, Option::or),
            tx: frames(self.tx, before.tx, Option::or),
            ebpf: ebpf(self.ebpf, before.ebpf, |now, _| now, Option::or),
            rx_dropped_by_device: self.rx_dropped_by_device.or(before.rx_dropped_by_device),
            rx_gap_packets: self.rx_gap_packets.or(before.rx_gap_packets),
            tx_gap_packets: self.tx_gap_packets.or(before.tx_gap_packets),
        }
    }

    /// Both together; what only one of them knows is that one's.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self {
            rx: frames(self.rx, other.rx, either),
            tx: frames(self.tx, other.tx, either),
            ebpf: ebpf(self.ebpf, other.ebpf, mix, volume),
            rx_dropped_by_device: either(self.rx_dropped_by_device, other.rx_dropped_by_device),
            rx_gap_packets: either(self.rx_gap_packets, other.rx_gap_packets),
            tx_gap_packets: either(self.tx_gap_packets, other.tx_gap_packets),
        }
    }
}

impl NicStats {
    /// As one counter goes on over all devices that the VM had under this name. What is not known of the one that it has
    /// now stays unknown.
    pub(crate) fn with_earlier(&self) -> Cow<'_, Self> {
        let Some(earlier) = &self.earlier else { return Cow::Borrowed(self) };
        let all = EarlierCounts::of(self).plus(earlier);
        let rx = frames(all.rx, self.rx, |all, now| all.filter(|_| now.is_some()));
        let tx = frames(all.tx, self.tx, |all, now| all.filter(|_| now.is_some()));
        Cow::Owned(Self {
            rx,
            tx,
            ebpf: all.ebpf.filter(|_| self.ebpf.is_some()),
            rx_dropped_by_device: all.rx_dropped_by_device.filter(|_| self.rx_dropped_by_device.is_some()),
            rx_gap_packets: all.rx_gap_packets.filter(|_| self.rx_gap_packets.is_some()),
            tx_gap_packets: all.tx_gap_packets.filter(|_| self.tx_gap_packets.is_some()),
            ..self.clone()
        })
    }
}

fn either(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.zip(b).map(|(a, b)| a.saturating_add(b)).or(a).or(b)
}

fn frames(
    a: FrameCounts,
    b: FrameCounts,
    of: impl Fn(Option<u64>, Option<u64>) -> Option<u64>,
) -> FrameCounts {
    FrameCounts {
        bytes: of(a.bytes, b.bytes),
        packets: of(a.packets, b.packets),
        dropped: of(a.dropped, b.dropped),
        errors: of(a.errors, b.errors),
    }
}

/// What only one of the two knows is that one's.
fn ebpf(
    a: Option<EbpfStats>,
    b: Option<EbpfStats>,
    mixes: impl Fn(PacketMix, PacketMix) -> PacketMix,
    volumes: impl Fn(Option<Volume>, Option<Volume>) -> Option<Volume>,
) -> Option<EbpfStats> {
    let (Some(a), Some(b)) = (a, b) else { return a.or(b) };
    Some(EbpfStats {
        rx: mixes(a.rx, b.rx),
        tx: mixes(a.tx, b.tx),
        offered: volumes(a.offered, b.offered),
        dropped_ring_full: volumes(a.dropped_ring_full, b.dropped_ring_full),
        dropped_filter: volumes(a.dropped_filter, b.dropped_filter),
        dropped_qdisc: volumes(a.dropped_qdisc, b.dropped_qdisc),
    })
}

fn volume(a: Option<Volume>, b: Option<Volume>) -> Option<Volume> {
    let sum = |a: Volume, b: Volume| Volume {
        packets: a.packets.saturating_add(b.packets),
        bytes: a.bytes.saturating_add(b.bytes),
    };
    a.zip(b).map(|(a, b)| sum(a, b)).or(a).or(b)
}

fn mix(a: PacketMix, b: PacketMix) -> PacketMix {
    let sum = u64::saturating_add;
    PacketMix {
        bytes: sum(a.bytes, b.bytes),
        packets: sum(a.packets, b.packets),
        wire_packets: sum(a.wire_packets, b.wire_packets),
        wire_bytes: sum(a.wire_bytes, b.wire_bytes),
        gso_packets: sum(a.gso_packets, b.gso_packets),
        ipv4: sum(a.ipv4, b.ipv4),
        ipv6: sum(a.ipv6, b.ipv6),
        arp: sum(a.arp, b.arp),
        other_l3: sum(a.other_l3, b.other_l3),
        tcp: sum(a.tcp, b.tcp),
        udp: sum(a.udp, b.udp),
        icmp: sum(a.icmp, b.icmp),
        other_l4: sum(a.other_l4, b.other_l4),
        unicast: sum(a.unicast, b.unicast),
        multicast: sum(a.multicast, b.multicast),
        broadcast: sum(a.broadcast, b.broadcast),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_now_stays_unknown() {
        let counts = |bytes, dropped| FrameCounts { bytes, dropped, ..FrameCounts::default() };
        let earlier = EarlierCounts { tx: counts(Some(5), Some(1)), ..EarlierCounts::default() };
        let nic = NicStats { tx: counts(Some(7), None), earlier: Some(earlier), ..NicStats::default() };
        assert_eq!(nic.with_earlier().tx, counts(Some(12), None));
    }

    #[test]
    fn a_number_that_only_one_device_had_is_kept() {
        let volume = |packets| Some(Volume { packets, bytes: 10 * packets });
        let ebpf = |offered| Some(EbpfStats { offered, ..EbpfStats::default() });
        let a = EarlierCounts { ebpf: ebpf(volume(1)), rx_gap_packets: Some(2), ..EarlierCounts::default() };
        let b = EarlierCounts { ebpf: ebpf(None), tx_gap_packets: Some(3), ..EarlierCounts::default() };
        let both = a.plus(&b);
        assert_eq!((both.ebpf, both.rx_gap_packets, both.tx_gap_packets), (a.ebpf, Some(2), Some(3)));
        assert_eq!(both.plus(&a).ebpf, ebpf(volume(2)));
    }
}
