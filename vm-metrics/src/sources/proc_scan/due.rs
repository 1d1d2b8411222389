//! Decides which processes are due for a close look, and in which order.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};

use super::queries::{QuickQuery, QuickReading};
use super::scan::Scan;
use super::{ProcessEntry, ProcessKind, SourceError, YOUNG};
use crate::procfs::executable;
use crate::sources::process::ReadError;

/// A process that is to be looked at.
#[derive(Debug)]
pub struct DueProcess {
    pub pid: u32,
    pub uid: Option<u32>,
    pub known: ProcessEntry,
}

/// The result of a quick look at a process.
#[derive(Debug)]
pub enum QuickResult {
    /// It has ended. It was this VM, if it was one.
    Gone(Option<ProcessEntry>),
    /// It has not changed.
    Same(ProcessEntry),
    /// It is to be looked at closely. Before it, the pid was of a VM that has ended.
    Due(ProcessEntry, Option<ProcessEntry>),
    /// It could not be looked at, for this reason.
    Failed(ProcessEntry, SourceError),
}

/// The next quick read of a process; `None` for a process that is no VM and need not be read now.
pub fn wanted(known: Option<&ProcessEntry>, scan: &Scan, is_named: bool) -> Option<QuickQuery> {
    match known {
        None => Some(QuickQuery::Origin),
        Some(entry) if entry.vm().is_some() => Some(QuickQuery::Same),
        Some(entry) => {
            // The first look may have had no answer.
            let query = if entry.parent.is_none() { QuickQuery::Origin } else { QuickQuery::Program };
            (is_named || !is_settled(entry, scan)).then_some(query)
        }
    }
}

/// A VM is the same by its start time, another process by the name of its program.
///
/// `uid` is the user of a process that is new.
pub fn judge(
    known: Option<ProcessEntry>,
    facts: QuickReading,
    uid: Option<u32>,
    scan: &Scan,
    is_named: bool,
) -> QuickResult {
    let QuickReading { stat, descriptors, program } = facts;
    if let Some(ProcessEntry { kind: ProcessKind::Vm(vm), .. }) = &known {
        let (is_same, holds_as_many) = match &stat {
            Some(Ok(stat)) if stat.is_dead() => return QuickResult::Gone(known),
            Some(Ok(stat)) => (stat.start_ticks == vm.start_ticks, vm.holds_as_many(descriptors)),
            _ => (true, true),
        };
        return match (known, stat) {
            (known, Some(Err(ReadError::Gone))) => QuickResult::Gone(known),
            (Some(entry), Some(Err(ReadError::Failed(error)))) => QuickResult::Failed(entry, error),
            (Some(entry), stat) if !is_same => {
                let parent = stat.and_then(Result::ok).map(|stat| stat.ppid);
                QuickResult::Due(
                    ProcessEntry::new(scan.now, entry.uid, parent, ProcessKind::NoVm),
                    Some(entry),
                )
            }
            (Some(entry), _) if is_settled(&entry, scan) && holds_as_many && !scan.devices_changed => {
                QuickResult::Same(entry)
            }
            (Some(entry), _) => QuickResult::Due(entry, None),
            (None, _) => QuickResult::Gone(None),
        };
    }
    let parent = stat.and_then(Result::ok).map(|stat| stat.ppid);
    let entry = known.unwrap_or_else(|| ProcessEntry::new(scan.now, uid, parent, ProcessKind::NoVm));
    let entry = ProcessEntry { parent: entry.parent.or(parent), ..entry };
    match program {
        None => QuickResult::Same(entry),
        Some(Err(ReadError::Gone)) => QuickResult::Gone(None),
        Some(Err(ReadError::Failed(error))) => {
            QuickResult::Same(ProcessEntry { kind: ProcessKind::Unreadable(error), ..entry })
        }
        Some(Ok(program)) => {
            let is_hypervisor = program.as_deref().and_then(executable::hypervisor).is_some();
            if is_hypervisor || is_named {
                QuickResult::Due(entry, None)
            } else {
                QuickResult::Same(ProcessEntry { kind: ProcessKind::NoVm, ..entry })
            }
        }
    }
}

fn is_settled(entry: &ProcessEntry, scan: &Scan) -> bool {
    let age = scan.now.saturating_sub(entry.first);
    age >= YOUNG && !scan.full_scan && entry.waits == 0
}

/// Processes of trusted users; and one process of each other user after the other, those that wait longest first. The users
/// have the order in which their processes come.
pub fn in_order(
    due: Vec<DueProcess>,
    is_trusted: impl Fn(Option<u32>) -> bool,
) -> (Vec<DueProcess>, Vec<DueProcess>) {
    let (trusted, others): (Vec<_>, Vec<_>) = due.into_iter().partition(|due| is_trusted(due.uid));
    let mut ordered = Vec::new();
    let (mut places, mut by_user) = (HashMap::new(), Vec::new());
    for due in others {
        let place = *places.entry(due.uid).or_insert(by_user.len());
        if place == by_user.len() {
            by_user.push(Vec::new());
        }
        by_user[place].push(due);
    }
    let mut queues: Vec<VecDeque<DueProcess>> = by_user.into_iter().map(waiting_first).collect();
    while !queues.is_empty() {
        ordered.extend(queues.iter_mut().filter_map(VecDeque::pop_front));
        queues.retain(|queue| !queue.is_empty());
    }
    (trusted, ordered)
}

fn waiting_first(mut due: Vec<DueProcess>) -> VecDeque<DueProcess> {
    due.sort_by_key(|due| Reverse(due.known.waits));
    due.into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn due(pid: u32, uid: u32, waits: u64) -> DueProcess {
        let known =
            ProcessEntry { waits, ..ProcessEntry::new(Duration::ZERO, Some(uid), None, ProcessKind::NoVm) };
        DueProcess { pid, uid: Some(uid), known }
    }

    fn pids(due: &[DueProcess]) -> Vec<u32> {
        due.iter().map(|due| due.pid).collect()
    }

    #[test]
    fn users_take_turns_after_trusted_ones() {
        let all = vec![due(1, 7, 0), due(2, 7, 3), due(3, 7, 9), due(4, 8, 0), due(5, 0, 0), due(6, 7, 0)];
        let (trusted, others) = in_order(all, |uid| uid == Some(0));
        assert_eq!((pids(&trusted), pids(&others)), (vec![5], vec![3, 4, 2, 1, 6]));
    }

    #[test]
    fn no_number_of_a_user_comes_first() {
        let (_, order) = in_order(vec![due(1, 9, 0), due(2, 8, 0), due(3, 9, 0)], |_| false);
        assert_eq!(pids(&order), [1, 2, 3]);
    }
}
