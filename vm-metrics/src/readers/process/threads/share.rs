//! Divides the threads that are read fairly among untrusted users. Pure.

use std::collections::BTreeMap;

use crate::model::fair_share;

/// Threads that are read of one process. A VM has a few per vCPU and per disk.
pub(super) const MAX_OF_PROCESS: u64 = 1024;

/// Threads that are read of all processes of users who are not trusted.
pub(super) const MAX_OF_STRANGERS: u64 = 16_384;

/// Series of vCPUs that all VMs of users who are not trusted have together.
pub(super) const MAX_VCPUS_OF_STRANGERS: u64 = 8192;

/// The demand of an untrusted user's process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    pub(super) pid: u32,
    pub(super) uid: Option<u32>,
    pub(super) count: u64,
}

/// The share of each process in the budget: users have fair shares, and so have the processes of one user.
pub(super) fn shares(budget: u64, demands: &[Demand]) -> BTreeMap<u32, u64> {
    let mut by_user: BTreeMap<Option<u32>, Vec<Demand>> = BTreeMap::new();
    for demand in demands {
        by_user.entry(demand.uid).or_default().push(*demand);
    }
    let of_user = |demands: &Vec<Demand>| demands.iter().map(|demand| demand.count).sum::<u64>();
    let user_share = fair_share(budget, by_user.values().map(of_user));
    let mut shares = BTreeMap::new();
    for demands in by_user.values() {
        let share = fair_share(user_share, demands.iter().map(|demand| demand.count));
        shares.extend(demands.iter().map(|demand| (demand.pid, demand.count.min(share))));
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn demand(pid: u32, uid: u32, count: u64) -> Demand {
        Demand { pid, uid: Some(uid), count }
    }

    #[test]
    fn a_greedy_user_cuts_its_own_processes() {
        let demands = [demand(1, 1000, 10), demand(2, 1001, 900), demand(3, 1001, 900), demand(4, 1001, 20)];
        let shares = shares(100, &demands);
        assert_eq!(shares, BTreeMap::from([(1, 10), (2, 35), (3, 35), (4, 20)]));
    }

    proptest! {
        #[test]
        fn shares_keep_within_budget_and_demand(
            budget in 0..5000_u64,
            demands in prop::collection::vec((0..5_u32, 0..2000_u64), 0..30),
        ) {
            let demand_of = |(pid, (uid, count)): (usize, &(u32, u64))| demand(u32::try_from(pid).unwrap(), *uid, *count);
            let demands: Vec<Demand> = demands.iter().enumerate().map(demand_of).collect();
            let shares = shares(budget, &demands);
            prop_assert!(shares.values().sum::<u64>() <= budget);
            prop_assert!(demands.iter().all(|demand| shares[&demand.pid] <= demand.count));
        }
    }
}
