//! Shares a budget of kept items fairly among users.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::model::{Tenant, fair_share};

/// An item that is kept for a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct QuotaItem {
    pub(super) tenant: Tenant,
    pub(super) size: u64,
    /// Items of more worth stay longer.
    pub(super) worth: u64,
}

/// The sizes that may be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// Of all trusted users together.
    pub(super) trusted: u64,
    /// Of all others together.
    pub(super) others: u64,
}

/// The items that have to go, as rising positions. Of equal worth the first go.
pub(super) fn over_quota(things: impl IntoIterator<Item = QuotaItem>, limit: Limit) -> Vec<usize> {
    let mut users: BTreeMap<Tenant, Vec<(usize, QuotaItem)>> = BTreeMap::new();
    for (at, kept) in things.into_iter().enumerate() {
        users.entry(kept.tenant).or_default().push((at, kept));
    }
    let demand = |things: &Vec<(usize, QuotaItem)>| things.iter().map(|(_, kept)| kept.size).sum::<u64>();
    let others = users.iter().filter(|(tenant, _)| !tenant.is_trusted());
    let share = fair_share(limit.others, others.map(|(_, things)| demand(things)));
    let mut gone = Vec::new();
    for (tenant, mut things) in users {
        let share = if tenant.is_trusted() { limit.trusted } else { share };
        if demand(&things) <= share {
            continue;
        }
        things.sort_by_key(|(at, kept)| Reverse((kept.worth, *at)));
        let mut used = 0_u64;
        for (at, kept) in things {
            used = used.saturating_add(kept.size);
            if used > share {
                gone.push(at);
            }
        }
    }
    gone.sort_unstable();
    gone
}

/// Removes the items at these rising positions.
pub(super) fn drop_at<T>(things: &mut Vec<T>, gone: &[usize]) {
    let (mut at, mut gone) = (0, gone.iter().peekable());
    things.retain(|_| {
        let goes = gone.next_if(|place| **place == at).is_some();
        at += 1;
        !goes
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(uid: u32, size: u64, worth: u64) -> QuotaItem {
        let tenant = if uid == 0 { Tenant::Trusted } else { Tenant::Other(Some(uid)) };
        QuotaItem { tenant, size, worth }
    }

    #[test]
    fn a_greedy_user_loses_only_own_items() {
        let things =
            [kept(7, 1, 5), kept(7, 1, 9), kept(9, 1, 0), kept(0, 1, 0), kept(7, 1, 1), kept(7, 1, 9)];
        let limit = Limit { trusted: 1, others: 3 };
        assert_eq!(over_quota(things, limit), [0, 4], "the largest stay");
        assert_eq!(over_quota(things, Limit { trusted: 0, others: 10 }), [3]);
    }

    #[test]
    fn sizes_add_up() {
        let things = [kept(7, 10, 1), kept(7, 60, 2), kept(7, 30, 3)];
        assert_eq!(over_quota(things, Limit { trusted: 0, others: 90 }), [0]);
        assert_eq!(over_quota(things, Limit { trusted: 0, others: 89 }), [0, 1]);
    }

    #[test]
    fn the_others_stay_in_their_order() {
        let mut things = vec![1, 2, 3, 4, 5];
        drop_at(&mut things, &[0, 3]);
        assert_eq!(things, [2, 3, 5]);
    }
}
