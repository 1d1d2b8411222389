//! The users whose processes may be VMs, and whose claims count as the operator's.

use std::collections::BTreeSet;

/// The section `[trust]`. Root is always trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// `None`: the section names no users, so processes of all users may be VMs.
    users: Option<BTreeSet<u32>>,
}

impl Trust {
    /// Only processes of root and of these users may be VMs.
    pub fn only(uids: impl IntoIterator<Item = u32>) -> Self {
        Self { users: Some(uids.into_iter().collect()) }
    }

    /// Whether processes of all users may be VMs.
    pub fn is_open(&self) -> bool {
        self.users.is_none()
    }

    /// Whether a process of this user may be a VM at all. An unknown user may only if the section names no users.
    pub fn may_run_vms(&self, uid: Option<u32>) -> bool {
        self.is_open() || self.is_trusted(uid)
    }

    /// Whether this user's claims about devices and ids count as the operator's.
    pub fn is_trusted(&self, uid: Option<u32>) -> bool {
        let listed = |uid| self.users.as_ref().is_some_and(|users| users.contains(&uid));
        uid.is_some_and(|uid| uid == ROOT || listed(uid))
    }
}

/// The user id of root.
const ROOT: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_list_all_may_run_vms() {
        let open = Trust::default();
        assert!(open.may_run_vms(Some(1000)) && open.may_run_vms(None));
        assert!(open.is_trusted(Some(0)) && !open.is_trusted(Some(1000)) && !open.is_trusted(None));
    }

    #[test]
    fn a_list_shuts_out_all_others() {
        let closed = Trust::only([64055]);
        for (uid, expected) in [(Some(0), true), (Some(64055), true), (Some(1000), false), (None, false)] {
            assert_eq!((closed.may_run_vms(uid), closed.is_trusted(uid)), (expected, expected), "{uid:?}");
        }
    }
}
