//! The looks at processes in one call: quick ones at all, close ones at those that are due.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use super::ask::{Answer, NowHeld, Question};
use super::due::{self, Due, Quick};
use super::inspect::Vm;
use super::looks::Pot;
use super::observer::{Observer, QuickFacts};
use super::program::Program;
use super::{Findings, Moment, ProcScan, Seen, What};
use crate::model::Hypervisor;
use crate::sources::process::{Process, Unread};

/// Looks at processes of strangers between two looks at the time that they have used.
const LOOKS_AT_ONCE: usize = 8;

impl ProcScan {
    /// The processes that are to be looked at closely.
    pub(super) fn look_quickly(
        &mut self,
        pids: Vec<u32>,
        moment: &Moment,
        observer: &Arc<Observer>,
        findings: &mut Findings,
    ) -> Vec<Due> {
        let mut before = mem::take(&mut self.seen);
        let is_named = |pid: &u32| self.named.contains(pid);
        let mut asked = Vec::new();
        for pid in &pids {
            if let Some(wanted) = due::wanted(before.get(pid), moment, is_named(pid)) {
                let known = before.get(pid).map(|seen| seen.uid);
                let uid = known.unwrap_or_else(|| Process::new(&self.host, *pid).owner());
                asked.push((*pid, uid, Question::Quick(wanted)));
            }
        }
        let users: HashMap<u32, Option<u32>> = asked.iter().map(|(pid, uid, _)| (*pid, *uid)).collect();
        let asked_pids: Vec<u32> = asked.iter().map(|(pid, ..)| *pid).collect();
        let answers = self.ask(asked, Pot::Vms, observer);
        let answers = asked_pids.into_iter().zip(answers).filter_map(|(pid, answer)| Some((pid, answer?.0)));
        let mut answers: HashMap<u32, Answer> = answers.collect();
        let mut due = Vec::new();
        for pid in pids {
            // One that does not answer stays what it was.
            let facts = match answers.remove(&pid) {
                Some(Answer::Quick(facts)) => facts,
                _ => QuickFacts::default(),
            };
            let uid = users.get(&pid).copied().flatten();
            match due::judge(before.remove(&pid), facts, uid, moment, self.named.contains(&pid)) {
                Quick::Gone(ended) => findings.ended.extend(ended.map(|seen| (pid, seen))),
                Quick::Same(seen) => drop(self.seen.insert(pid, seen)),
                Quick::Failed(seen, error) => {
                    findings.problems.push(error);
                    self.seen.insert(pid, seen);
                }
                Quick::Due(known, ended) => {
                    findings.ended.extend(ended.map(|seen| (pid, seen)));
                    due.push(Due { pid, uid: known.uid, known });
                }
            }
        }
        findings.ended.extend(before);
        due
    }

    /// Those of strangers for whom there is time. The others wait for the next call.
    pub(super) fn those_with_room(&mut self, due: Vec<Due>) -> Vec<Due> {
        let (now, later): (Vec<_>, Vec<_>) = due.into_iter().partition(|due| self.looks.is_room(due.uid));
        for Due { pid, uid, known } in later {
            self.overuse.add(uid, "processes", 1);
            self.seen.insert(pid, Seen { waits: known.waits + 1, ..known });
        }
        now
    }

    pub(super) fn look_closely(
        &mut self,
        due: Vec<Due>,
        observer: &Arc<Observer>,
        moment: &Moment,
        findings: &mut Findings,
    ) {
        let question = |due: &Due| match due.known.vm() {
            Some(vm) => Question::of(vm),
            None => Question::New { is_named: self.named.contains(&due.pid) },
        };
        let asked: Vec<_> = due.iter().map(|due| (due.pid, due.uid, question(due))).collect();
        let answers = self.ask(asked, Pot::Vms, observer);
        for (Due { pid, known, .. }, answer) in due.into_iter().zip(answers) {
            let Some((answer, _)) = answer else {
                // It does not answer, or there was no time left for it: it stays what it was, and comes first next time.
                self.seen.insert(pid, Seen { waits: known.waits + 1, ..known });
                continue;
            };
            let seen = match answer {
                Answer::Vm(program, held) => self.update_vm(pid, known, program, held, observer, findings),
                Answer::New(found) => new_vm(known, found, moment),
                Answer::Quick(_) | Answer::Holder(_) | Answer::Held(_) | Answer::Kvm(_) => Some(known),
            };
            self.seen.extend(seen.map(|seen| (pid, Seen { waits: 0, ..seen })));
        }
    }

    /// A VM that cannot be read for once stays what it was.
    fn update_vm(
        &self,
        pid: u32,
        mut seen: Seen,
        program: Option<Program>,
        held: Result<NowHeld, Unread>,
        observer: &Observer,
        findings: &mut Findings,
    ) -> Option<Seen> {
        let What::Vm(vm) = &mut seen.what else { return Some(seen) };
        let left = vm.program.as_ref().zip(program.as_ref()).is_some_and(|(was, is)| was.was_left_for(is));
        let is_unwanted = !vm.is_listed && !self.named.contains(&pid);
        let next = Seen::new(seen.first, seen.uid, seen.parent, What::NoVm);
        if left || is_unwanted {
            findings.ended.push((pid, seen));
            return Some(next);
        }
        let before = vm.info.nics.clone();
        match held {
            Ok(now) => vm.take_now(pid, observer, now),
            Err(Unread::Gone) => {
                findings.ended.push((pid, seen));
                return None;
            }
            Err(Unread::Failed(error)) => findings.problems.push(error),
        }
        // Any other program is part of a VM only as long as it holds a device of it.
        let by_kvm = matches!(vm.info.hypervisor, Hypervisor::Program(_));
        let is_other =
            (by_kvm || program.is_some_and(|program| !program.is_hypervisor())) && !vm.runs_by_kvm();
        let is_known_whole = vm.part().is_none();
        if vm.is_listed && is_other && is_known_whole && vm.info.nics.is_empty() {
            findings.ended.push((pid, seen));
            return Some(next);
        }
        let lost: Vec<_> = before.into_iter().filter(|nic| !vm.info.nics.contains(nic)).collect();
        if !lost.is_empty() || !vm.heirs.is_empty() {
            findings.lost.push((pid, lost));
        }
        Some(seen)
    }

    /// Those of the processes that are there, with what they hold. Looks at strangers use their time.
    pub(super) fn holders(&mut self, pids: &[u32], pot: Pot, observer: &Arc<Observer>) -> Holders {
        let mut holders = Holders::default();
        for pid in pids {
            let uid = self.seen.get(pid).and_then(|seen| seen.uid);
            if !self.has_room(uid, pot) {
                holders.unknown.push(*pid);
                continue;
            }
            let question = Question::Holder(self.parts.remove(pid));
            let answer = self.ask(vec![(*pid, uid, question)], pot, observer).pop().flatten();
            match answer {
                Some((Answer::Holder(Some(vm)), _)) => match vm.part() {
                    // It may hold more than was found so far.
                    Some(part) => {
                        self.parts.insert(*pid, part.clone());
                        holders.unknown.push(*pid);
                    }
                    None => holders.found.push((*pid, *vm)),
                },
                Some(_) => {}
                None => holders.unknown.push(*pid),
            }
        }
        holders
    }

    /// What a process is by the program that it runs now: a VM, or a holder of devices.
    pub(super) fn program(&mut self, pid: u32, observer: &Arc<Observer>) -> Option<Vm> {
        let uid = self.seen.get(&pid)?.uid;
        if !self.has_room(uid, Pot::Vms) {
            return None;
        }
        let asked = vec![(pid, uid, Question::New { is_named: false })];
        let answer = self.ask(asked, Pot::Vms, observer).pop()??;
        match answer.0 {
            Answer::New(Ok(Some(vm))) => Some(*vm),
            _ => self.holders(&[pid], Pot::Vms, observer).found.pop().map(|(_, holder)| holder),
        }
    }
}

/// Processes and what they hold.
#[derive(Debug, Default)]
pub struct Holders {
    pub found: Vec<(u32, Vm)>,
    /// Those that have not answered, or for which their users had no time left.
    pub unknown: Vec<u32>,
}

/// What a process is that was no VM so far; `None` when it is gone.
fn new_vm(known: Seen, found: Result<Option<Box<Vm>>, Unread>, moment: &Moment) -> Option<Seen> {
    let first = known.first;
    let seen = |first, what| Some(Seen { first, what, waits: 0, ..known });
    match found {
        Ok(None) => seen(first, What::NoVm),
        // Its TAPs may come as late after an `exec` as after a `fork`.
        Ok(Some(vm)) => seen(moment.now, What::Vm(vm)),
        Err(Unread::Gone) => None,
        Err(Unread::Failed(error)) => seen(first, What::Unreadable(error)),
    }
}

/// So few that each user has a turn before the time is over.
pub fn chunks(mut due: Vec<Due>) -> Vec<Vec<Due>> {
    let mut chunks = Vec::new();
    while !due.is_empty() {
        let rest = due.split_off(due.len().min(LOOKS_AT_ONCE));
        chunks.push(mem::replace(&mut due, rest));
    }
    chunks
}
