//! Counts the frames offered to a guest that still wait for it.
//!
//! Every offered frame is delivered, dropped, or waits: `base + offered = delivered + dropped + waiting`. The base
//! holds the frames delivered and dropped before the programs were attached, and the frames that waited then. The
//! kernel does not count it. But the backlog is never below 0, so the base is the greatest `delivered + dropped -
//! offered` seen. It is exact from the first moment without backlog. For a device as young as its programs it is exact
//! from the beginning.
//!
//! Delivered and dropped frames are read before offered ones. So frames between the two readings count as waiting, and
//! the result is never below 0.

/// The backlog of one NIC, in packets or in bytes.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    base: u64,
}

impl Backlog {
    /// `gone` counts delivered and dropped frames, always since the same moment: the birth of the device, or the
    /// attach.
    pub(super) fn update(&mut self, offered: u64, gone: u64) -> u64 {
        self.base = self.base.max(gone.saturating_sub(offered));
        self.base.saturating_add(offered).saturating_sub(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_neither_delivered_nor_dropped_waits() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.update(3, 0), 3);
        assert_eq!(backlog.update(5, 4), 1);
        assert_eq!(backlog.update(5, 5), 0);
    }

    #[test]
    fn what_was_before_the_attach_is_no_backlog() {
        let mut backlog = Backlog::default();
        // 100 delivered before, and 7 waited, of which nothing is known until they are gone.
        assert_eq!(backlog.update(0, 100), 0);
        assert_eq!(backlog.update(2, 109), 0);
        assert_eq!(backlog.update(6, 109), 4);
    }

    proptest! {
        /// With any arrivals between the readings: never below 0, never too small, exact when quiet.
        #[test]
        fn never_too_small_and_exact_when_quiet(
            before in 0_u64..1000,
            steps in prop::collection::vec((0_u64..100, 0_u64..100, 0_u64..100), 1..50),
        ) {
            let mut backlog = Backlog::default();
            prop_assert_eq!(backlog.update(0, before), 0);
            let (mut offered, mut gone) = (0, 0);
            for (arrives, goes, arrives_between) in steps {
                offered += arrives;
                gone += goes.min(offered - gone);
                let waits = offered - gone;
                prop_assert_eq!(backlog.update(offered, before + gone), waits);
                offered += arrives_between;
                prop_assert_eq!(backlog.update(offered, before + gone), waits + arrives_between);
            }
        }
    }
}
