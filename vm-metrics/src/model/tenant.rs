//! On whose behalf work is done: what is bounded is bounded by user.

use std::collections::{BTreeMap, VecDeque};

use super::{InstanceInfo, Trust};

/// The user that causes some work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Tenant {
    /// Root and the users in `[trust]`, whose work is not cut by shares.
    Trusted,
    /// Any other user; `None` where the user is not known.
    Other(Option<u32>),
}

impl Tenant {
    /// A VM without a process is the operator's word: no process describes it.
    pub(crate) fn of(vm: &InstanceInfo, trust: &Trust) -> Self {
        let is_named_only = vm.uid.is_none() && vm.hypervisor_pid.is_none();
        if is_named_only || trust.is_trusted(vm.uid) { Self::Trusted } else { Self::Other(vm.uid) }
    }

    pub(crate) fn is_trusted(self) -> bool {
        self == Self::Trusted
    }

    /// Whether a VM of this user may go on under the id of one of another.
    pub(crate) fn may_succeed(self, other: Self) -> bool {
        self.is_trusted() || self == other
    }

    pub(crate) fn uid(self) -> Option<u32> {
        match self {
            Self::Trusted => None,
            Self::Other(uid) => uid,
        }
    }
}

/// The things of trusted users first, then one of each user after the other; another user begins at each `turn`.
pub(crate) fn in_turns<T>(things: impl IntoIterator<Item = (Tenant, T)>, turn: usize) -> Vec<T> {
    let mut ordered = Vec::new();
    let mut users: BTreeMap<Tenant, VecDeque<T>> = BTreeMap::new();
    for (tenant, thing) in things {
        match tenant {
            Tenant::Trusted => ordered.push(thing),
            Tenant::Other(_) => users.entry(tenant).or_default().push_back(thing),
        }
    }
    let mut users: VecDeque<VecDeque<T>> = users.into_values().collect();
    if !users.is_empty() {
        users.rotate_left(turn % users.len());
    }
    while let Some(mut things) = users.pop_front() {
        ordered.extend(things.pop_front());
        if !things.is_empty() {
            users.push_back(things);
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_a_turn() {
        let of = |uid, thing| (if uid == 0 { Tenant::Trusted } else { Tenant::Other(Some(uid)) }, thing);
        let things = [of(7, 1), of(7, 2), of(7, 3), of(0, 4), of(9, 5), of(0, 6)];
        assert_eq!(in_turns(things, 0), [4, 6, 1, 5, 2, 3]);
        assert_eq!(in_turns(things, 1), [4, 6, 5, 1, 2, 3]);
    }

    #[test]
    fn only_root_and_listed_users_are_trusted() {
        let of = |uid, hypervisor_pid| {
            let vm = InstanceInfo { uid, hypervisor_pid, ..InstanceInfo::default() };
            Tenant::of(&vm, &Trust::only([64055]))
        };
        assert_eq!([of(Some(0), Some(1)), of(Some(64055), Some(1)), of(None, None)], [Tenant::Trusted; 3]);
        assert_eq!(of(Some(1000), Some(1)), Tenant::Other(Some(1000)));
        assert_eq!(of(None, Some(1)), Tenant::Other(None));
    }
}
