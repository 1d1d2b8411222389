//! Counters of a VM's former devices under the same name.

#![warn(missing_docs)]

use serde::{Deserialize, Serialize};

use super::{DirectionStats, EbpfStats, FrameCounts, Traffic};

/// Sums of these devices, each up to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct EarlierCounts {
    /// Frames that the guest received.
    pub rx: FrameCounts,
    /// Frames that the guest sent.
    pub tx: FrameCounts,
    /// Counters of the eBPF programs.
    pub ebpf: Option<EbpfStats>,
    /// Packets for the guest that the devices dropped for an unknown reason.
    pub rx_dropped_by_device: Option<u64>,
    /// Packets for the guest that the programs missed.
    pub rx_gap_packets: Option<u64>,
    /// The same for packets that the guest sent.
    pub tx_gap_packets: Option<u64>,
}

impl EarlierCounts {
    /// These counts; unknown ones are those of `before`.
    pub(crate) fn or(&self, before: &Self) -> Self {
        self.zip_with(before, Option::or, EbpfStats::or)
    }

    /// The sum; a count that one of them lacks is the other's.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        let split = |one, other| both(one, other, u64::saturating_add);
        let traffic = |one: Traffic, other| one.zip_with(other, u64::saturating_add);
        self.zip_with(
            other,
            |one, other| both(one, other, u64::saturating_add),
            |one, other| {
                both(one, other, |one, other| {
                    one.zip_with(
                        other,
                        |one, other| one.zip_with(other, u64::saturating_add, split),
                        |one, other| both(one, other, traffic),
                    )
                })
            },
        )
    }

    /// The sum; a counter that is unknown in `self` stays unknown.
    pub(super) fn continue_from(&self, earlier: &Self) -> Self {
        let direction = |all: DirectionStats<_>, now| all.zip_with(now, |all, _| all, if_known);
        self.plus(earlier)
            .zip_with(self, if_known, |all, now| Some(all?.zip_with(now?, direction, |all, _| all)))
    }

    /// Combines each count of `self` and `other` by `count`, and those of the programs by `ebpf`.
    fn zip_with(
        &self,
        other: &Self,
        count: impl Fn(Option<u64>, Option<u64>) -> Option<u64>,
        ebpf: impl Fn(Option<EbpfStats>, Option<EbpfStats>) -> Option<EbpfStats>,
    ) -> Self {
        Self {
            rx: self.rx.zip_with(other.rx, &count),
            tx: self.tx.zip_with(other.tx, &count),
            ebpf: ebpf(self.ebpf, other.ebpf),
            rx_dropped_by_device: count(self.rx_dropped_by_device, other.rx_dropped_by_device),
            rx_gap_packets: count(self.rx_gap_packets, other.rx_gap_packets),
            tx_gap_packets: count(self.tx_gap_packets, other.tx_gap_packets),
        }
    }
}

fn if_known<T>(all: Option<T>, now: Option<T>) -> Option<T> {
    all.filter(|_| now.is_some())
}

/// A count that one of them lacks is the other's.
fn both<T: Copy>(one: Option<T>, other: Option<T>, of: impl Fn(T, T) -> T) -> Option<T> {
    one.zip(other).map(|(one, other)| of(one, other)).or(one).or(other)
}

#[cfg(test)]
mod tests {
    use super::super::NicStats;
    use super::*;

    #[test]
    fn what_is_not_known_now_stays_unknown() {
        let counts = |bytes, dropped| FrameCounts { bytes, dropped, ..FrameCounts::default() };
        let earlier = EarlierCounts { tx: counts(Some(5), Some(1)), ..EarlierCounts::default() };
        let nic = NicStats { tx: counts(Some(7), None), earlier: Some(earlier), ..NicStats::default() };
        assert_eq!(nic.with_earlier().tx, counts(Some(12), None));
    }

    #[test]
    fn a_counter_that_is_off_stays_unknown() {
        let ebpf = |udp, tcp| {
            let tx = DirectionStats { packets: 1, udp, tcp, ..DirectionStats::default() };
            Some(EbpfStats { tx, ..EbpfStats::default() })
        };
        let earlier = EarlierCounts { ebpf: ebpf(Some(5), None), ..EarlierCounts::default() };
        let nic = NicStats { ebpf: ebpf(None, Some(7)), earlier: Some(earlier), ..NicStats::default() };
        let all = nic.with_earlier().ebpf.unwrap().tx;
        assert_eq!((all.packets, all.udp, all.tcp), (2, None, Some(7)));
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
