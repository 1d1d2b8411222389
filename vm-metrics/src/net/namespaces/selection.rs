//! Selects the namespaces that a tick follows: shares of users, and a grace time.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::{Namespaces, RESOURCE};
use crate::model::{Excess, Tenant, Trust, VmSet, fair_share, in_turns};

/// A VM that has no TAP in the namespace any more may be making it anew. While its process lives, it has this time: longer
/// than from one look at its descriptors to the next.
const KEEP: Duration = Duration::from_secs(40);

/// A namespace in which VMs of this tick have TAPs.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) pids: Vec<u32>,
    pub(super) tenant: Tenant,
}

/// The namespaces in which VMs have TAPs that have not ended. A trusted user's VM makes it a trusted one's.
pub(super) fn wanted(vms: &VmSet, ended: &HashSet<u32>, trust: &Trust) -> BTreeMap<u64, Wanted> {
    let mut wanted: BTreeMap<u64, Wanted> = BTreeMap::new();
    // A source may list a VM also when it has ended.
    let has_ended = |pid: Option<u32>| pid.is_some_and(|pid| ended.contains(&pid));
    for vm in vms.vms.iter().filter(|vm| !has_ended(vm.hypervisor_pid)) {
        let tenant = Tenant::of(vm, trust);
        for netns in vm.nics.iter().filter_map(|nic| nic.netns) {
            let known = wanted.entry(netns).or_insert_with(|| Wanted { pids: Vec::new(), tenant });
            known.tenant = known.tenant.min(tenant);
            if known.pids.last() != vm.hypervisor_pid.as_ref() {
                known.pids.extend(vm.hypervisor_pid);
            }
        }
    }
    wanted
}

impl Namespaces {
    /// Adds the namespaces in which VMs had TAPs a moment ago.
    pub(super) fn keep_for_a_while(
        &self,
        vms: &VmSet,
        ended: &HashSet<u32>,
        wanted: &mut BTreeMap<u64, Wanted>,
    ) {
        let mut left = self.foreign.iter().filter(|(netns, _)| !wanted.contains_key(netns)).peekable();
        if left.peek().is_none() {
            return;
        }
        let living: HashSet<u32> = vms.pids().filter(|pid| !ended.contains(pid)).collect();
        let kept = left.filter_map(|(netns, known)| {
            let pids: Vec<u32> = known.pids.iter().copied().filter(|pid| living.contains(pid)).collect();
            let is_kept = !pids.is_empty() && known.used_at.elapsed() < KEEP;
            is_kept.then_some((*netns, Wanted { pids, tenant: known.tenant }))
        });
        let kept: Vec<_> = kept.collect();
        wanted.extend(kept);
    }

    /// Returns the namespaces within the shares, and the excess of users. A user who wants more than a share keeps the
    /// open ones.
    pub(super) fn within_shares(&self, wanted: &BTreeMap<u64, Wanted>) -> (Vec<u64>, Excess) {
        let mut overuse = Excess::default();
        let mut users: BTreeMap<Tenant, Vec<u64>> = BTreeMap::new();
        for (netns, Wanted { tenant, .. }) in wanted {
            users.entry(*tenant).or_default().push(*netns);
        }
        let others = users.iter().filter(|(tenant, _)| !tenant.is_trusted());
        let share = fair_share(self.max_of_others, others.map(|(_, namespaces)| namespaces.len() as u64));
        let share = usize::try_from(share).unwrap_or(usize::MAX);
        for (tenant, namespaces) in &mut users {
            if let Tenant::Other(uid) = tenant {
                // The sort is stable: open namespaces come first.
                namespaces.sort_by_key(|netns| !self.foreign.contains_key(netns));
                overuse.add(*uid, RESOURCE, namespaces.len().saturating_sub(share) as u64);
                namespaces.truncate(share);
            }
        }
        let of_user = |(tenant, namespaces): (Tenant, Vec<u64>)| {
            namespaces.into_iter().map(move |netns| (tenant, netns))
        };
        (in_turns(users.into_iter().flat_map(of_user), self.turn), overuse)
    }
}
