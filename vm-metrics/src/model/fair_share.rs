//! Divides a budget among users, and counts what each user got no share of.

use std::collections::BTreeMap;

/// What one user asked for beyond the budget, in one tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overuse {
    /// `None` where the user of a process is not known.
    pub uid: Option<u32>,
    /// The plural of what is counted, for example `descriptors`.
    pub resource: &'static str,
    /// How many of them were not looked at.
    pub count: u64,
}

/// The largest amount that each user may have, so that all together have no more than the budget.
///
/// Users who ask for less keep what they ask for; the others share the rest evenly (max-min fairness).
pub fn fair_share(budget: u64, demands: impl IntoIterator<Item = u64>) -> u64 {
    let mut demands: Vec<u64> = demands.into_iter().collect();
    demands.sort_unstable();
    let (mut left, mut users) = (budget, demands.len() as u64);
    for demand in demands {
        let share = left / users;
        if demand > share {
            return share;
        }
        left -= demand;
        users -= 1;
    }
    u64::MAX
}

/// What users went over, by user and resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excess(BTreeMap<(Option<u32>, &'static str), u64>);

impl Excess {
    pub fn add(&mut self, uid: Option<u32>, resource: &'static str, count: u64) {
        if count > 0 {
            *self.0.entry((uid, resource)).or_default() += count;
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn merge(&mut self, other: Self) {
        for ((uid, resource), count) in other.0 {
            self.add(uid, resource, count);
        }
    }

    /// In the order of user and resource.
    pub fn into_list(self) -> Vec<Overuse> {
        let entry = |((uid, resource), count)| Overuse { uid, resource, count };
        self.0.into_iter().map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_greedy_user_takes_nothing_from_modest_ones() {
        assert_eq!(fair_share(100, [10, 20, 10_000]), 70);
        assert_eq!(fair_share(100, [10, 20]), u64::MAX);
        assert_eq!(fair_share(100, [90, 90]), 50);
        assert_eq!(fair_share(100, []), u64::MAX);
    }

    #[test]
    fn excess_adds_up_by_user_and_resource() {
        let mut excess = Excess::default();
        excess.add(Some(1), "threads", 2);
        excess.add(Some(1), "threads", 3);
        excess.add(Some(1), "descriptors", 0);
        assert_eq!(excess.into_list(), [Overuse { uid: Some(1), resource: "threads", count: 5 }]);
    }

    proptest! {
        #[test]
        fn shares_never_exceed_the_budget(budget in 0..10_000_u64, demands in prop::collection::vec(0..10_000_u64, 0..20)) {
            let share = fair_share(budget, demands.iter().copied());
            let given: u64 = demands.iter().map(|demand| (*demand).min(share)).sum();
            prop_assert!(given <= budget);
        }
    }
}
