//! Counters of the devices that a VM had before under the same name.

#![warn(missing_docs)]

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{DirectionStats, EbpfStats, FrameCounts, NicStats, Traffic};

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
            rx: self.rx.zip_with(before.rx, Option::or),
            tx: self.tx.zip_with(before.tx, Option::or),
            ebpf: EbpfStats::or(self.ebpf, before.ebpf),
            rx_dropped_by_device: self.rx_dropped_by_device.or(before.rx_dropped_by_device),
            rx_gap_packets: self.rx_gap_packets.or(before.rx_gap_packets),
            tx_gap_packets: self.tx_gap_packets.or(before.tx_gap_packets),
        }
    }

    /// Both together; what only one of them knows is that one's.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self {
            rx: self.rx.zip_with(other.rx, either),
            tx: self.tx.zip_with(other.tx, either),
            ebpf: both(self.ebpf, other.ebpf, |one, other| {
                let direction = |one: DirectionStats, other| one.zip_with(other, u64::saturating_add);
                let traffic = |one, other| {
                    both(one, other, |one: Traffic, other| one.zip_with(other, u64::saturating_add))
                };
                one.zip_with(other, direction, traffic)
            }),
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
        let rx = all.rx.zip_with(self.rx, |all, now| all.filter(|_| now.is_some()));
        let tx = all.tx.zip_with(self.tx, |all, now| all.filter(|_| now.is_some()));
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

/// The sum; what only one of the two knows is that one's.
fn either(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    both(one, other, u64::saturating_add)
}

fn both<T: Copy>(one: Option<T>, other: Option<T>, of: impl Fn(T, T) -> T) -> Option<T> {
    one.zip(other).map(|(one, other)| of(one, other)).or(one).or(other)
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
    fn a_number_of_only_one_device_is_kept() {
        let volume = |packets| Some(Traffic { packets, bytes: 10 * packets });
        let ebpf = |offered| Some(EbpfStats { offered, ..EbpfStats::default() });
        let a = EarlierCounts { ebpf: ebpf(volume(1)), rx_gap_packets: Some(2), ..EarlierCounts::default() };
        let b = EarlierCounts { ebpf: ebpf(None), tx_gap_packets: Some(3), ..EarlierCounts::default() };
        let both = a.plus(&b);
        assert_eq!((both.ebpf, both.rx_gap_packets, both.tx_gap_packets), (a.ebpf, Some(2), Some(3)));
        assert_eq!(both.plus(&a).ebpf, ebpf(volume(2)));
    }
}
