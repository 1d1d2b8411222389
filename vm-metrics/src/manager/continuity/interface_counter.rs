//! Continues the counter of an interface over the devices that had its name.
//!
//! A device that is made anew under its name counts from 0. Without this, its counter would begin anew, and a scraper
//! would miss the end of the former one. So the counter goes on from that end.

use serde::{Deserialize, Serialize};

use super::totals::counts_anew;
use crate::model::{EarlierCounts, NicSince};

/// The counts of former devices at their ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct EarlierTotals {
    pub(super) counts: EarlierCounts,
    /// When the first of them began.
    since: Option<f64>,
    /// When the programs were attached to the first that had them.
    ebpf_since: Option<f64>,
}

/// Of one interface.
#[derive(Debug, Default)]
pub(super) struct InterfaceCounter {
    /// The share that counts now; 0 for none yet.
    share: u64,
    counts: EarlierCounts,
    since: NicSince,
    earlier: Option<EarlierTotals>,
    /// The last tick that used it.
    pub(super) last_tick: u64,
}

impl InterfaceCounter {
    /// Takes in the counts of a share. `restored` are the counts of a daemon before this one, from before the share.
    pub(super) fn step(
        &mut self,
        share: u64,
        counts: EarlierCounts,
        since: NicSince,
        restored: Option<EarlierTotals>,
    ) {
        if self.share != share {
            let ended = (self.share != 0).then_some(EarlierTotals {
                counts: self.counts,
                since: self.since.device,
                ebpf_since: self.since.ebpf,
            });
            self.earlier = join(join(self.earlier, ended), restored);
            (self.share, self.counts) = (share, EarlierCounts::default());
        }
        let both = counts.ebpf.zip(self.counts.ebpf);
        if both.is_some_and(|(now, before)| counts_anew(&now, &before))
            && let Some(earlier) = &mut self.earlier
        {
            // The programs count from 0, and so does the series: the former counts are published.
            earlier.counts.ebpf = None;
        }
        self.counts = counts.or(&self.counts);
        self.since = since;
    }

    /// Adds a device that had the name between two ticks. It came at this time, if that is known.
    pub(super) fn add_short_lived(&mut self, counts: EarlierCounts, came: Option<f64>) {
        let has_begun = self.share != 0 || self.earlier.is_some();
        let since = if has_begun { self.since().device } else { came };
        self.earlier = join(self.earlier, Some(EarlierTotals { counts, since, ebpf_since: None }));
    }

    /// Forgets the beginning: after a rename it is in other series.
    pub(super) fn forget_beginning(&mut self) {
        if let Some(earlier) = &mut self.earlier {
            (earlier.since, earlier.ebpf_since) = (None, None);
        }
    }

    /// Forgets the counts of former programs: the series of eBPF counters begins anew.
    pub(super) fn forget_ebpf(&mut self) {
        if let Some(earlier) = &mut self.earlier {
            (earlier.counts.ebpf, earlier.ebpf_since) = (None, None);
        }
    }

    /// The counts before the present share.
    pub(super) fn earlier(&self) -> Option<EarlierTotals> {
        self.earlier
    }

    /// The time from which all of it counts.
    pub(super) fn since(&self) -> NicSince {
        let of_ebpf = self.earlier.filter(|earlier| earlier.counts.ebpf.is_some());
        NicSince {
            device: self.earlier.map_or(self.since.device, |earlier| earlier.since),
            ebpf: of_ebpf.map_or(self.since.ebpf, |earlier| earlier.ebpf_since),
        }
    }
}

fn join(first: Option<EarlierTotals>, then: Option<EarlierTotals>) -> Option<EarlierTotals> {
    let (Some(first), Some(then)) = (first, then) else { return first.or(then) };
    let ebpf_since = if first.counts.ebpf.is_some() { first.ebpf_since } else { then.ebpf_since };
    Some(EarlierTotals { counts: first.counts.plus(&then.counts), since: first.since, ebpf_since })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DirectionStats, EbpfStats, FrameCounts};

    fn counts(tx: u64, ebpf: Option<u64>) -> EarlierCounts {
        let stats = |packets| {
            let tx = DirectionStats { packets, ..DirectionStats::default() };
            EbpfStats { tx, ..EbpfStats::default() }
        };
        let tx = FrameCounts { bytes: Some(tx), ..FrameCounts::default() };
        EarlierCounts { tx, ebpf: ebpf.map(stats), ..EarlierCounts::default() }
    }

    fn since(device: f64, ebpf: f64) -> NicSince {
        NicSince { device: Some(device), ebpf: Some(ebpf) }
    }

    fn before(counter: &InterfaceCounter) -> (Option<u64>, Option<u64>) {
        let earlier = counter.earlier().unwrap_or_default().counts;
        (earlier.tx.bytes, earlier.ebpf.map(|ebpf| ebpf.tx.packets))
    }

    #[test]
    fn a_counter_goes_on_over_its_devices() {
        let mut counter = InterfaceCounter::default();
        counter.step(1, counts(5, Some(1)), since(1.0, 2.0), None);
        assert_eq!(before(&counter), (None, None));
        counter.step(1, counts(7, Some(2)), since(1.0, 2.0), None);
        counter.step(2, counts(1, None), since(3.0, 4.0), None);
        assert_eq!(before(&counter), (Some(7), Some(2)));
        counter.add_short_lived(counts(10, None), Some(4.0));
        counter.step(3, counts(0, Some(1)), since(5.0, 6.0), None);
        assert_eq!((before(&counter), counter.since()), ((Some(18), Some(2)), since(1.0, 2.0)));
    }

    #[test]
    fn programs_that_count_anew_begin_a_series_anew() {
        let mut counter = InterfaceCounter::default();
        counter.step(1, counts(5, Some(5)), since(1.0, 2.0), None);
        counter.step(2, counts(5, Some(9)), since(3.0, 4.0), None);
        counter.step(2, counts(6, Some(1)), since(3.0, 5.0), None);
        assert_eq!((before(&counter), counter.since()), ((Some(5), None), since(1.0, 5.0)));
    }

    #[test]
    fn restored_counts_come_first() {
        let mut counter = InterfaceCounter::default();
        let restored = EarlierTotals { counts: counts(100, None), since: Some(1.0), ebpf_since: None };
        counter.step(1, counts(5, Some(5)), since(3.0, 4.0), Some(restored));
        assert_eq!((before(&counter), counter.since()), ((Some(100), None), since(1.0, 4.0)));
    }

    #[test]
    fn an_unseen_device_comes_first() {
        let mut counter = InterfaceCounter::default();
        counter.add_short_lived(counts(10, None), Some(2.0));
        counter.step(1, counts(5, None), since(3.0, 4.0), None);
        assert_eq!((before(&counter), counter.since()), ((Some(10), None), since(2.0, 4.0)));
    }
}
