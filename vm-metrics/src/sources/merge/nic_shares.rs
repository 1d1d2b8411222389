//! Joins the unmonitored NICs of several sources, and limits the NICs of strangers.

use std::collections::HashMap;

use super::MergedVm;
use crate::model::{InstanceInfo, UnmonitoredNic, fair_share};

/// NICs of all VMs together that describe themselves and whose users are not trusted. Each is dozens of series.
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

/// Divides the NICs among the users of VMs that describe themselves. A process may hold, and an API may name, any number.
/// The sums of a VM beyond its user's share are unknown. Returns the NICs left out, by source.
pub fn limit(vms: &mut [MergedVm]) -> Vec<(usize, Option<u32>, u64)> {
    // An operator's VM keeps all: no tenant may take any from it.
    let mut vms: Vec<_> = vms.iter_mut().filter(|vm| vm.standing.is_user()).collect();
    let mut left_out = Vec::new();
    // TAPs first: an unmonitored NIC costs a tenant no more than an argument.
    let taps = cut(&mut vms, MAX_OF_STRANGERS, |info| &mut info.nics, &mut left_out);
    let room = MAX_OF_STRANGERS.saturating_sub(taps);
    cut(&mut vms, room, |info| &mut info.unmonitored, &mut left_out);
    left_out
}

/// Leaves each user a share of the room. Returns how many are left in all.
fn cut<T>(
    vms: &mut [&mut MergedVm],
    room: u64,
    nics: fn(&mut InstanceInfo) -> &mut Vec<T>,
    left_out: &mut Vec<(usize, Option<u32>, u64)>,
) -> u64 {
    let mut demands: HashMap<Option<u32>, u64> = HashMap::new();
    for MergedVm { info, .. } in vms.iter_mut() {
        *demands.entry(info.uid).or_default() += nics(info).len() as u64;
    }
    // Of too many users each has one.
    let share = fair_share(room, demands.into_values()).max(1);
    let mut counts: HashMap<Option<u32>, u64> = HashMap::new();
    for MergedVm { info, source, .. } in vms {
        let (count, nics) = (counts.entry(info.uid).or_default(), nics(info));
        let demand = nics.len();
        nics.truncate(usize::try_from(share.saturating_sub(*count)).unwrap_or(usize::MAX));
        *count += nics.len() as u64;
        let beyond = (demand - nics.len()) as u64;
        info.has_more_nics |= beyond > 0;
        left_out.push((*source, info.uid, beyond));
    }
    counts.into_values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UnmonitoredKind::{self, User, Vfio, VhostUser};
    use crate::sources::merge::claims::Standing;

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
        let vm = |standing, uid, count: usize| {
            let unmonitored = nics(&vec![(User, "n0"); count]);
            let info = InstanceInfo { uid: Some(uid), unmonitored, ..InstanceInfo::default() };
            MergedVm { info, source: 0, standing }
        };
        let mut vms: Vec<MergedVm> = (0..6).map(|_| vm(Standing::User(Some(7)), 7, 256)).collect();
        vms.extend([vm(Standing::User(Some(8)), 8, 3), vm(Standing::Trusted, 0, 256)]);
        let overuse = limit(&mut vms);
        assert_eq!(overuse.iter().map(|(_, _, count)| count).sum::<u64>(), 6 * 256 - 1021);
        let of = |uid| vms.iter().filter(move |vm| vm.info.uid == Some(uid));
        let count = |uid| of(uid).map(|vm| vm.info.unmonitored.len()).sum::<usize>();
        assert_eq!((count(7), count(8), count(0)), (1021, 3, 256));
        let cut = |uid| of(uid).filter(|vm| vm.info.has_more_nics).count();
        assert_eq!((cut(7), cut(8), cut(0)), (3, 0, 0));
    }
}
