//! Finds the processes of VMs that are alone in their control group. Pure.

use std::collections::HashSet;
use std::path::Path;

/// A process of a VM, or `None` for the daemon, and its group.
pub(super) type Member<'p> = (&'p Path, Option<u32>);

/// The processes whose group has no other of these in it or below it.
pub(super) fn alone(mut members: Vec<Member<'_>>) -> HashSet<u32> {
    // By components: a group is followed by all that are in it or below it.
    members.sort_unstable();
    let is_alone = |at: usize, group: &Path| {
        let before = at.checked_sub(1).and_then(|before| members.get(before));
        let is_in = |other: Option<&Member<'_>>| other.is_some_and(|(other, _)| other.starts_with(group));
        !is_in(before) && !is_in(members.get(at + 1))
    };
    let members_alone = members.iter().enumerate().filter(|(at, (group, _))| is_alone(*at, group));
    members_alone.filter_map(|(_, (_, pid))| *pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(groups: &[(&str, Option<u32>)]) -> Vec<u32> {
        let members = groups.iter().map(|(group, pid)| (Path::new(*group), *pid)).collect();
        let mut pids: Vec<u32> = alone(members).into_iter().collect();
        pids.sort_unstable();
        pids
    }

    #[test]
    fn shared_groups_are_not_shown() {
        assert_eq!(of(&[("a", Some(1)), ("b", Some(2))]), [1, 2]);
        assert_eq!(of(&[("a", Some(1)), ("b", Some(2)), ("a", Some(3))]), [2]);
        assert_eq!(of(&[("a", Some(1)), ("a/b", Some(2)), ("a/c", Some(3))]), [2, 3]);
        assert_eq!(of(&[("a", Some(1)), ("a/b/c", None), ("a-b", Some(2))]), [2]);
        assert_eq!(of(&[("a", Some(1)), ("a-b", Some(2)), ("a/b", Some(3))]), [2, 3]);
        assert_eq!(of(&[("", Some(1)), ("x", None)]), [0; 0]);
        assert_eq!(of(&[]), [0; 0]);
    }
}
