//! Which processes are due for a close look, and in which order they have it.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};

use super::observer::{QuickFacts, Wanted};
use super::{Moment, Seen, SourceError, What, YOUNG};
use crate::sources::process::Unread;
use crate::sources::process::executable;

/// A process that is to be looked at.
#[derive(Debug)]
pub struct Due {
    pub pid: u32,
    pub uid: Option<u32>,
    pub known: Seen,
}

/// What a quick look at a process finds.
#[derive(Debug)]
pub enum Quick {
    /// It has ended. It was this VM, if it was one.
    Gone(Option<Seen>),
    /// It is what it was.
    Same(Seen),
    /// It is to be looked at closely. Before it, the pid was of a VM that has ended.
    Due(Seen, Option<Seen>),
    /// It could not be looked at, for this reason.
    Failed(Seen, SourceError),
}

/// What is to be read of a process; `None` for one that is known to be no VM and to stay none for a while.
pub fn wanted(known: Option<&Seen>, moment: &Moment, is_named: bool) -> Option<Wanted> {
    match known {
        None => Some(Wanted::Origin),
        Some(seen) if seen.vm().is_some() => Some(Wanted::Same),
        Some(seen) => (is_named || !is_settled(seen, moment)).then_some(Wanted::Program),
    }
}

/// A VM is the same by its start time, another process by the name of its program.
///
/// `uid` is the user of a process that is new.
pub fn judge(
    known: Option<Seen>,
    facts: QuickFacts,
    uid: Option<u32>,
    moment: &Moment,
    is_named: bool,
) -> Quick {
    let QuickFacts { stat, descriptors, program } = facts;
    if let Some(Seen { what: What::Vm(vm), .. }) = &known {
        let (is_same, holds_as_many) = match &stat {
            Some(Ok(stat)) if stat.is_dead() => return Quick::Gone(known),
            Some(Ok(stat)) => (stat.start_ticks == vm.start_ticks, vm.holds_as_many(descriptors)),
            _ => (true, true),
        };
        return match (known, stat) {
            (known, Some(Err(Unread::Gone))) => Quick::Gone(known),
            (Some(seen), Some(Err(Unread::Failed(error)))) => Quick::Failed(seen, error),
            (Some(seen), stat) if !is_same => {
                let parent = stat.and_then(Result::ok).map(|stat| stat.ppid);
                Quick::Due(Seen::new(moment.now, seen.uid, parent, What::NoVm), Some(seen))
            }
            (Some(seen), _) if is_settled(&seen, moment) && holds_as_many && !moment.devices_changed => {
                Quick::Same(seen)
            }
            (Some(seen), _) => Quick::Due(seen, None),
            (None, _) => Quick::Gone(None),
        };
    }
    let parent = stat.and_then(Result::ok).map(|stat| stat.ppid);
    let seen = known.unwrap_or_else(|| Seen::new(moment.now, uid, parent, What::NoVm));
    match program {
        None => Quick::Same(seen),
        Some(Err(Unread::Gone)) => Quick::Gone(None),
        Some(Err(Unread::Failed(error))) => Quick::Same(Seen { what: What::Unreadable(error), ..seen }),
        Some(Ok(program)) => {
            let is_hypervisor = program.as_deref().and_then(executable::hypervisor).is_some();
            if is_hypervisor || is_named {
                Quick::Due(seen, None)
            } else {
                Quick::Same(Seen { what: What::NoVm, ..seen })
            }
        }
    }
}

fn is_settled(seen: &Seen, moment: &Moment) -> bool {
    let age = moment.now.saturating_sub(seen.first);
    age >= YOUNG && !moment.full_scan && seen.waits == 0
}

/// Trusted users first; then one process of each other user after the other, those that wait longest first. The users have
/// the order in which their processes come.
pub fn in_order(due: Vec<Due>, is_trusted: impl Fn(Option<u32>) -> bool) -> Vec<Due> {
    let (mut ordered, others): (Vec<_>, Vec<_>) = due.into_iter().partition(|due| is_trusted(due.uid));
    let (mut places, mut by_user) = (HashMap::new(), Vec::new());
    for due in others {
        let place = *places.entry(due.uid).or_insert(by_user.len());
        if place == by_user.len() {
            by_user.push(Vec::new());
        }
        by_user[place].push(due);
    }
    let mut queues: Vec<VecDeque<Due>> = by_user.into_iter().map(waiting_first).collect();
    while !queues.is_empty() {
        ordered.extend(queues.iter_mut().filter_map(VecDeque::pop_front));
        queues.retain(|queue| !queue.is_empty());
    }
    ordered
}

fn waiting_first(mut due: Vec<Due>) -> VecDeque<Due> {
    due.sort_by_key(|due| Reverse(due.known.waits));
    due.into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn due(pid: u32, uid: u32, waits: u64) -> Due {
        let known = Seen { waits, ..Seen::new(Duration::ZERO, Some(uid), None, What::NoVm) };
        Due { pid, uid: Some(uid), known }
    }

    #[test]
    fn users_take_turns_after_trusted_ones() {
        let all = vec![due(1, 7, 0), due(2, 7, 3), due(3, 7, 9), due(4, 8, 0), due(5, 0, 0), due(6, 7, 0)];
        let order = in_order(all, |uid| uid == Some(0));
        assert_eq!(order.iter().map(|due| due.pid).collect::<Vec<_>>(), [5, 3, 4, 2, 1, 6]);
    }

    #[test]
    fn no_number_of_a_user_comes_first() {
        let order = in_order(vec![due(1, 9, 0), due(2, 8, 0), due(3, 9, 0)], |_| false);
        assert_eq!(order.iter().map(|due| due.pid).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
