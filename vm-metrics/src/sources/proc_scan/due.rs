//! Which processes are due for a close look, and in which order they have it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use super::process::{Process, Unread};
use super::{Moment, Seen, What, YOUNG};
use crate::sources::executable;

/// A process that is to be looked at.
#[derive(Debug)]
pub struct Due {
    pub pid: u32,
    pub uid: Option<u32>,
    /// `None` for one that is new.
    pub known: Option<Seen>,
}

/// What a quick look at a process finds.
#[derive(Debug)]
pub enum Quick {
    /// It has ended. It was this VM, if it was one.
    Gone(Option<Seen>),
    /// It is what it was.
    Same(Seen),
    /// It is to be looked at closely. Before it, the pid was of a VM that has ended.
    Due(Option<Seen>, Option<Seen>),
    /// It could not be looked at, for this reason.
    Failed(Option<Seen>, super::SourceError),
}

/// Costs a few microseconds: a VM is the same by its start time, another process by the name of its program.
pub fn quick_look(process: &Process, known: Option<Seen>, moment: &Moment, is_named: bool) -> Quick {
    let mut known = known;
    let mut ended = None;
    if let Some(Seen { what: What::Vm(vm), .. }) = &known {
        match process.stat() {
            Ok(stat) if stat.start_ticks == vm.start_ticks && !stat.is_dead() => {}
            Ok(_) => ended = known.take(),
            Err(Unread::Gone) => return Quick::Gone(known),
            Err(Unread::Failed(error)) => return Quick::Failed(known, error),
        }
    }
    let age = |seen: &Seen| moment.now.saturating_sub(seen.first);
    let is_settled = |seen: &Seen| age(seen) >= YOUNG && !moment.full_scan && seen.waits == 0;
    match known {
        Some(seen) if is_settled(&seen) => match &seen.what {
            What::Vm(vm) if moment.devices_changed || !vm.holds_as_many(process) => {
                Quick::Due(Some(seen), ended)
            }
            What::NoVm if is_named => Quick::Due(Some(seen), ended),
            _ => Quick::Same(seen),
        },
        Some(seen) if matches!(seen.what, What::Vm(_)) => Quick::Due(Some(seen), ended),
        known => match process.executable() {
            Ok(program) => {
                let is_hypervisor = program.as_deref().and_then(executable::hypervisor).is_some();
                match known {
                    _ if is_hypervisor || is_named => Quick::Due(known, ended),
                    _ if ended.is_some() => Quick::Due(None, ended),
                    Some(seen) => Quick::Same(Seen { what: What::NoVm, ..seen }),
                    None => Quick::Same(Seen::new(moment.now, parent(process), What::NoVm)),
                }
            }
            Err(Unread::Gone) => Quick::Gone(ended),
            Err(Unread::Failed(_)) => Quick::Due(known, ended),
        },
    }
}

/// The process that started this one, or the one that took it over when that had ended.
pub fn parent(process: &Process) -> Option<u32> {
    process.stat().ok().map(|stat| stat.ppid)
}

/// Trusted users first; then one process of each other user after the other, those that wait longest first.
pub fn in_order(due: Vec<Due>, is_trusted: impl Fn(Option<u32>) -> bool) -> Vec<Due> {
    let (mut ordered, others): (Vec<_>, Vec<_>) = due.into_iter().partition(|due| is_trusted(due.uid));
    let mut by_user: BTreeMap<Option<u32>, Vec<Due>> = BTreeMap::new();
    for due in others {
        by_user.entry(due.uid).or_default().push(due);
    }
    let mut queues: Vec<VecDeque<Due>> = by_user.into_values().map(waiting_first).collect();
    while !queues.is_empty() {
        ordered.extend(queues.iter_mut().filter_map(VecDeque::pop_front));
        queues.retain(|queue| !queue.is_empty());
    }
    ordered
}

fn waiting_first(mut due: Vec<Due>) -> VecDeque<Due> {
    due.sort_by_key(|due| Reverse(due.known.as_ref().map_or(0, |seen| seen.waits)));
    due.into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn due(pid: u32, uid: u32, waits: u64) -> Due {
        let seen = Seen { waits, ..Seen::new(Duration::ZERO, None, What::NoVm) };
        Due { pid, uid: Some(uid), known: (waits > 0).then_some(seen) }
    }

    #[test]
    fn users_take_turns_after_trusted_ones() {
        let all = vec![due(1, 7, 0), due(2, 7, 3), due(3, 7, 9), due(4, 8, 0), due(5, 0, 0), due(6, 7, 0)];
        let order = in_order(all, |uid| uid == Some(0));
        assert_eq!(order.iter().map(|due| due.pid).collect::<Vec<_>>(), [5, 3, 4, 2, 1, 6]);
    }
}
