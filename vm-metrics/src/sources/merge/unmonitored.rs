//! Merges the unmonitored NICs of several sources, and limits them.

use std::collections::HashMap;

use super::MergedVm;
use super::claims::ClaimRank;
use crate::model::{UnmonitoredNic, fair_share};

/// NICs of all VMs together that describe themselves and whose users are not trusted.
const MAX_OF_STRANGERS: u64 = 1024;

/// Adds those that another source knows. Sources have several names for one NIC, so of each kind the longest list counts,
/// and of two such lists the first.
pub fn join(nics: &mut Vec<UnmonitoredNic>, others: &[UnmonitoredNic]) {
    for (at, UnmonitoredNic { kind, .. }) in others.iter().enumerate() {
        let of_kind = |nics: &[UnmonitoredNic]| nics.iter().filter(|nic| nic.kind == *kind).count();
        let is_first = others[..at].iter().all(|nic| nic.kind != *kind);
        if is_first && of_kind(others) > of_kind(nics) {
            nics.retain(|nic| nic.kind != *kind);
            nics.extend(others.iter().filter(|nic| nic.kind == *kind).cloned());
        }
    }
}

/// An API may name any number. Each user has a share; the sums of a VM beyond it are unknown.
pub fn limit(vms: &mut [MergedVm]) {
    let of_strangers = |vm: &&mut MergedVm| vm.claim == ClaimRank::Stranger;
    let mut demands: HashMap<Option<u32>, u64> = HashMap::new();
    for vm in vms.iter_mut().filter(of_strangers) {
        *demands.entry(vm.info.uid).or_default() += (vm.info.nics.len() + vm.info.unmonitored.len()) as u64;
    }
    let share = fair_share(MAX_OF_STRANGERS, demands.into_values());
    let mut counts: HashMap<Option<u32>, u64> = HashMap::new();
    for MergedVm { info, .. } in vms.iter_mut().filter(of_strangers) {
        let count = counts.entry(info.uid).or_default();
        *count += info.nics.len() as u64;
        let room = usize::try_from(share.saturating_sub(*count)).unwrap_or(usize::MAX);
        info.has_more_nics |= info.unmonitored.len() > room;
        info.unmonitored.truncate(room);
        *count += info.unmonitored.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::InstanceInfo;
    use crate::model::UnmonitoredKind::{self, User, Vfio, VhostUser};

    fn nics(nics: &[(UnmonitoredKind, &str)]) -> Vec<UnmonitoredNic> {
        nics.iter().map(|(kind, name)| UnmonitoredNic { kind: *kind, name: (*name).to_owned() }).collect()
    }

    #[test]
    fn the_longest_list_of_a_kind_counts() {
        let mut joined = nics(&[(User, "hostnet0"), (Vfio, "0000:03:00.0")]);
        join(
            &mut joined,
            &nics(&[(User, "n0"), (VhostUser, "/a"), (VhostUser, "/b"), (Vfio, "0000:03:00.0")]),
        );
        join(&mut joined, &nics(&[(VhostUser, "/c"), (Vfio, "0000:03:00.0"), (Vfio, "0000:04:00.0")]));
        let expected = [
            (User, "hostnet0"),
            (VhostUser, "/a"),
            (VhostUser, "/b"),
            (Vfio, "0000:03:00.0"),
            (Vfio, "0000:04:00.0"),
        ];
        assert_eq!(joined, nics(&expected));
    }

    #[test]
    fn strangers_share_the_room_for_nics() {
        let vm = |uid, claim, count: usize| {
            let unmonitored = nics(&vec![(User, "n0"); count]);
            let info = InstanceInfo { uid: Some(uid), unmonitored, ..InstanceInfo::default() };
            MergedVm { info, source: 0, claim }
        };
        let mut vms: Vec<MergedVm> = (0..6).map(|_| vm(7, ClaimRank::Stranger, 256)).collect();
        vms.extend([vm(8, ClaimRank::Stranger, 3), vm(0, ClaimRank::Trusted, 256)]);
        limit(&mut vms);
        let of = |uid| vms.iter().filter(move |vm| vm.info.uid == Some(uid));
        let count = |uid| of(uid).map(|vm| vm.info.unmonitored.len()).sum::<usize>();
        assert_eq!((count(7), count(8), count(0)), (1021, 3, 256));
        let cut = |uid| of(uid).filter(|vm| vm.info.has_more_nics).count();
        assert_eq!((cut(7), cut(8), cut(0)), (3, 0, 0));
    }
}
