//! Counts packets that a device dropped for an unknown reason.
//!
//! The tracepoint was not there, or gave no reason. Together with the explained drops they are all drops of the device.
//! A packet is in one of the numbers only, and none of them falls.

use super::gap::Gap;
use super::totals::Totals;

/// Of one device.
#[derive(Debug, Default)]
pub(in crate::manager) struct UnexplainedDrops {
    gap: Gap,
    has_reasons: bool,
    published: u64,
}

impl UnexplainedDrops {
    /// The owner's number. `cumulative` is of the device's whole life, `published` of its owner. `counted` are the
    /// drops that the tracepoint has seen. `None` while these cannot be read, though they could before or are awaited:
    /// the packets would count twice when their reasons come.
    pub(in crate::manager) fn update(
        &mut self,
        cumulative: &Totals,
        published: &Totals,
        counted: Option<u64>,
        is_awaited: bool,
    ) -> Option<u64> {
        let dropped = published.rx.dropped?;
        let now = match counted {
            None if self.has_reasons || is_awaited => return None,
            None => dropped,
            Some(_) => {
                self.has_reasons = true;
                let unexplained = self.gap.update(cumulative.rx.dropped, counted)?;
                // Drops of former owners are not the present one's; an earlier daemon explained them.
                unexplained.min(dropped.saturating_sub(explained(published)))
            }
        };
        self.published = self.published.max(now);
        Some(self.published)
    }

    pub(super) fn hand_over(&mut self) {
        self.gap.hand_over();
        self.published = 0;
    }
}

fn explained(published: &Totals) -> u64 {
    let ebpf = published.ebpf.unwrap_or_default();
    [ebpf.dropped_ring_full, ebpf.dropped_filter].into_iter().flatten().map(|drops| drops.packets).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EbpfStats, FrameCounts, Traffic};

    /// Drops at the full ring and by a filter.
    type Reasons = Option<(u64, u64)>;

    fn totals(dropped: u64, reasons: Reasons) -> Totals {
        let volume = |packets| Some(Traffic { packets, bytes: 0 });
        let ebpf = reasons.map(|(ring_full, filter)| EbpfStats {
            dropped_ring_full: volume(ring_full),
            dropped_filter: volume(filter),
            dropped_qdisc: volume(1000),
            ..EbpfStats::default()
        });
        let rx = FrameCounts { dropped: Some(dropped), ..FrameCounts::default() };
        Totals { rx, ebpf, ..Totals::default() }
    }

    fn step(unexplained: &mut UnexplainedDrops, dropped: u64, reasons: Reasons) -> Option<u64> {
        let cumulative = totals(dropped, reasons);
        unexplained.update(
            &cumulative,
            &cumulative,
            reasons.map(|(ring_full, filter)| ring_full + filter),
            false,
        )
    }

    #[test]
    fn without_a_tracepoint_no_reason_is_known() {
        let mut unexplained = UnexplainedDrops::default();
        assert_eq!(step(&mut unexplained, 100, None), Some(100));
        assert_eq!(step(&mut unexplained, 110, None), Some(110));
    }

    #[test]
    fn known_reasons_are_not_counted_twice() {
        let mut unexplained = UnexplainedDrops::default();
        assert_eq!(step(&mut unexplained, 100, Some((0, 0))), Some(100), "before the attach");
        assert_eq!(step(&mut unexplained, 150, Some((30, 20))), Some(100));
        assert_eq!(step(&mut unexplained, 170, None), None, "they are told later");
        assert_eq!(step(&mut unexplained, 180, Some((50, 30))), Some(100));
        assert_eq!(step(&mut unexplained, 190, Some((50, 30))), Some(110), "a reason that is not told");
        assert_eq!(step(&mut unexplained, 200, Some((10, 0))), Some(110), "the tracepoint counts anew");
    }

    #[test]
    fn the_next_owner_begins_at_nothing() {
        let mut unexplained = UnexplainedDrops::default();
        assert_eq!(step(&mut unexplained, 100, Some((40, 0))), Some(60));
        unexplained.hand_over();
        let (cumulative, published) = (totals(110, Some((50, 0))), totals(10, Some((10, 0))));
        assert_eq!(unexplained.update(&cumulative, &published, Some(50), false), Some(0));
    }

    /// The daemon before explained the drops of a former owner, and its tracepoint has left with it.
    #[test]
    fn former_owners_keep_their_drops() {
        let mut unexplained = UnexplainedDrops::default();
        let (cumulative, published) = (totals(150, Some((0, 0))), totals(0, Some((0, 0))));
        assert_eq!(unexplained.update(&cumulative, &published, Some(0), false), Some(0));
    }
}
