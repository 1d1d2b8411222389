//! Continues the counters of a VM from one control group to the next. Pure.

use crate::model::CgroupCounters;

/// The counters of one VM. None of them falls.
#[derive(Clone, Debug, Default)]
pub(super) struct Stitched {
    /// The group that is counted now; `None` before the first, and between two.
    group: Option<u64>,
    /// The offset of each counter: its first value since the VM's arrival.
    origin: CgroupCounters,
    /// The sums of the former groups.
    carried: CgroupCounters,
    published: CgroupCounters,
    has_begun: bool,
}

impl Stitched {
    /// Takes the counters of the group with this id, and returns those of the VM: the first group's as they are, and the
    /// increase in later ones.
    pub(super) fn step(&mut self, id: u64, now: CgroupCounters) -> CgroupCounters {
        if self.group != Some(id) {
            self.carried = self.published;
            self.origin = if self.has_begun { [None; _] } else { [Some(0); _] };
            (self.group, self.has_begun) = (Some(id), true);
        }
        std::array::from_fn(|at| {
            let now = now[at]?;
            let since = now.saturating_sub(*self.origin[at].get_or_insert(now));
            let value = self.carried[at].unwrap_or(0).saturating_add(since);
            let value = value.max(self.published[at].unwrap_or(0));
            self.published[at] = Some(value);
            Some(value)
        })
    }

    /// The counts of its group are not the VM's alone for a while.
    pub(super) fn pause(&mut self) {
        // If the VM was never alone, the former counts do not count either.
        (self.group, self.has_begun) = (None, true);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counters(value: u64) -> CgroupCounters {
        let mut counters = CgroupCounters::default();
        counters[0] = Some(value);
        counters
    }

    fn first(stitched: &mut Stitched, id: u64, value: u64) -> Option<u64> {
        stitched.step(id, counters(value))[0]
    }

    #[test]
    fn the_first_group_keeps_the_kernels_numbers() {
        let mut stitched = Stitched::default();
        assert_eq!([5, 7].map(|value| first(&mut stitched, 1, value)), [Some(5), Some(7)]);
        assert_eq!(stitched.step(1, CgroupCounters::default())[0], None, "not read, which is not 0");
        assert_eq!(first(&mut stitched, 1, 8), Some(8));
    }

    #[test]
    fn a_move_goes_on_without_what_was_there() {
        let mut stitched = Stitched::default();
        first(&mut stitched, 1, 10);
        assert_eq!([100, 103].map(|value| first(&mut stitched, 2, value)), [Some(10), Some(13)]);
        assert_eq!([50, 51].map(|value| first(&mut stitched, 1, value)), [Some(13), Some(14)]);
    }

    #[test]
    fn nothing_counts_while_another_vm_is_there() {
        let mut stitched = Stitched::default();
        first(&mut stitched, 1, 10);
        stitched.pause();
        stitched.pause();
        assert_eq!([90, 91].map(|value| first(&mut stitched, 1, value)), [Some(10), Some(11)]);
        let mut never_alone = Stitched::default();
        never_alone.pause();
        assert_eq!([90, 91].map(|value| first(&mut never_alone, 1, value)), [Some(0), Some(1)]);
    }

    #[test]
    fn a_counter_switched_on_later_begins_there() {
        let mut stitched = Stitched::default();
        first(&mut stitched, 1, 10);
        assert_eq!(stitched.step(2, CgroupCounters::default())[0], None);
        assert_eq!([500, 503].map(|value| first(&mut stitched, 2, value)), [Some(10), Some(13)]);
    }

    proptest! {
        #[test]
        fn it_never_falls(steps in prop::collection::vec((0..3_u64, 0..100_u64, any::<bool>()), 1..50)) {
            let mut stitched = Stitched::default();
            let mut last = 0;
            for (id, value, pause) in steps {
                if pause {
                    stitched.pause();
                }
                let now = first(&mut stitched, id, value).unwrap();
                prop_assert!(now >= last);
                last = now;
            }
        }
    }
}
