//! The looks at processes in one call: quick ones at all, close ones at those that are due.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::due::{self, Due, Quick};
use super::inspect::Vm;
use super::observer::{HeldNics, Observer};
use super::process::{Process, Unread};
use super::program::Program;
use super::{Findings, Moment, ProcScan, Seen, What};

/// Looks at processes of strangers between two looks at the time that they have used.
const LOOKS_AT_ONCE: usize = 8;

impl ProcScan {
    /// The processes that are to be looked at closely.
    pub fn look_quickly(
        &mut self,
        pids: Vec<u32>,
        moment: &Moment,
        observer: &Arc<Observer>,
        findings: &mut Findings,
    ) -> Vec<Due> {
        let mut before = mem::take(&mut self.seen);
        let is_named = |pid: &u32| self.named.contains(pid);
        let wanted = |pid: &u32| Some((*pid, due::wanted(before.get(pid), moment, is_named(pid))?));
        let jobs: Vec<_> = pids.iter().filter_map(wanted).collect();
        let asked: Vec<u32> = jobs.iter().map(|(pid, _)| *pid).collect();
        let facts = self.ask(jobs, observer, Observer::quick);
        let mut facts: HashMap<u32, _> = asked.into_iter().zip(facts).collect();
        let mut due = Vec::new();
        for pid in pids {
            let (known, facts) = (before.remove(&pid), facts.remove(&pid));
            // One that does not answer stays what it was.
            let facts = facts.flatten().unwrap_or_default();
            match due::judge(known, facts, moment, self.named.contains(&pid)) {
                Quick::Gone(ended) => findings.ended.extend(ended.map(|seen| (pid, seen))),
                Quick::Same(seen) => drop(self.seen.insert(pid, seen)),
                Quick::Failed(seen, error) => {
                    findings.problems.push(error);
                    self.seen.insert(pid, seen);
                }
                Quick::Due(known, ended) => {
                    findings.ended.extend(ended.map(|seen| (pid, seen)));
                    let of_vm = known.vm().and_then(|vm| vm.info.uid);
                    let uid = of_vm.or_else(|| Process::new(&self.host, pid).uid());
                    due.push(Due { pid, uid, known });
                }
            }
        }
        findings.ended.extend(before);
        due
    }

    /// Those of strangers for whom there is time. The others wait for the next call.
    pub fn those_with_room(&mut self, due: Vec<Due>) -> Vec<Due> {
        let (now, later): (Vec<_>, Vec<_>) = due.into_iter().partition(|due| self.looks.is_room(due.uid));
        for Due { pid, uid, known } in later {
            self.overuse.add(uid, "processes", 1);
            self.seen.insert(pid, Seen { waits: known.waits + 1, ..known });
        }
        now
    }

    pub fn look_closely(
        &mut self,
        due: Vec<Due>,
        observer: &Arc<Observer>,
        moment: &Moment,
        findings: &mut Findings,
    ) {
        let question = |due: &Due| match due.known.vm() {
            Some(_) => Question::Vm,
            None => Question::New { is_named: self.named.contains(&due.pid) },
        };
        let jobs = due.iter().map(|due| (due.pid, question(due))).collect();
        let answers = self.ask(jobs, observer, answer);
        for (Due { pid, uid, known }, answer) in due.into_iter().zip(answers) {
            let Some((answer, took)) = answer else {
                // It does not answer: it stays what it was.
                self.overuse.add(uid, "unanswered", 1);
                self.seen.insert(pid, known);
                continue;
            };
            if !self.trust.is_trusted(uid) {
                self.looks.used(uid, took);
            }
            let seen = match answer {
                Answer::Vm(program, held) => self.update_vm(pid, known, program, held, observer, findings),
                Answer::New(found) => new_vm(known, found, moment),
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
        held: Result<HeldNics, Unread>,
        observer: &Observer,
        findings: &mut Findings,
    ) -> Option<Seen> {
        let What::Vm(vm) = &mut seen.what else { return Some(seen) };
        let left = vm.program.as_ref().zip(program.as_ref()).is_some_and(|(was, is)| was.was_left_for(is));
        let is_unwanted = !vm.is_listed && !self.named.contains(&pid);
        let next = Seen::new(seen.first, seen.parent, What::NoVm);
        if left || is_unwanted {
            findings.ended.push((pid, seen));
            return Some(next);
        }
        let before = vm.info.nics.clone();
        match held {
            Ok(held) => vm.take_nics(pid, observer, held),
            Err(Unread::Gone) => {
                findings.ended.push((pid, seen));
                return None;
            }
            Err(Unread::Failed(error)) => findings.problems.push(error),
        }
        // Any other program is part of a VM only as long as it holds a device of it.
        let is_other = program.is_some_and(|program| !program.is_hypervisor());
        if vm.is_listed && is_other && vm.info.nics.is_empty() {
            findings.ended.push((pid, seen));
            return Some(next);
        }
        let lost: Vec<_> = before.into_iter().filter(|nic| !vm.info.nics.contains(nic)).collect();
        if !lost.is_empty() {
            findings.lost.push((pid, lost));
        }
        Some(seen)
    }

    /// Of two VMs with the same NIC, one may have lost it since its NICs were read.
    pub fn look_at_shared_nics(&mut self, observer: &Arc<Observer>, findings: &mut Findings) {
        let mut holders = HashMap::new();
        for nic in self.seen.values().filter_map(Seen::vm).flat_map(|vm| &vm.info.nics) {
            *holders.entry(nic).or_insert(0) += 1;
        }
        let shares = |vm: &Vm| vm.heirs.is_empty() && vm.info.nics.iter().any(|nic| holders[nic] > 1);
        let mut jobs = Vec::new();
        for (pid, vm) in self.seen.iter().filter_map(|(pid, seen)| Some((*pid, seen.vm()?))) {
            let uid = vm.info.uid;
            if shares(vm) && (self.trust.is_trusted(uid) || self.looks.is_room(uid)) {
                jobs.push((pid, Question::Vm));
            }
        }
        let pids: Vec<u32> = jobs.iter().map(|(pid, _)| *pid).collect();
        let answers = self.ask(jobs, observer, answer);
        for (pid, answer) in pids.into_iter().zip(answers) {
            let Some(Seen { what: What::Vm(vm), .. }) = self.seen.get_mut(&pid) else { continue };
            let Some((Answer::Vm(_, held), took)) = answer else { continue };
            if !self.trust.is_trusted(vm.info.uid) {
                self.looks.used(vm.info.uid, took);
            }
            match held {
                Ok(held) => vm.take_nics(pid, observer, held),
                Err(Unread::Failed(error)) => findings.problems.push(error),
                Err(Unread::Gone) => {}
            }
        }
    }

    /// Asks each of these processes. `None` for one that does not answer.
    pub fn ask<Q, A>(
        &mut self,
        jobs: Vec<(u32, Q)>,
        observer: &Arc<Observer>,
        read: fn(&Observer, u32, Q) -> A,
    ) -> Vec<Option<A>> {
        jobs.into_iter().map(|(pid, question)| Some(read(observer, pid, question))).collect()
    }
}

/// What is to be read of a process by a close look.
#[derive(Clone, Copy, Debug)]
enum Question {
    Vm,
    New { is_named: bool },
}

#[derive(Debug)]
enum Answer {
    Vm(Option<Program>, Result<HeldNics, Unread>),
    New(Result<Option<Box<Vm>>, Unread>),
}

/// And how long it took.
fn answer(observer: &Observer, pid: u32, question: Question) -> (Answer, Duration) {
    let began = Instant::now();
    let answer = match question {
        Question::Vm => {
            let (program, held) = observer.vm(pid);
            Answer::Vm(program, held)
        }
        Question::New { is_named } => {
            Answer::New(observer.new_process(pid, is_named).map(|vm| vm.map(Box::new)))
        }
    };
    (answer, began.elapsed())
}

/// What a process is that was no VM so far; `None` when it is gone.
fn new_vm(known: Seen, found: Result<Option<Box<Vm>>, Unread>, moment: &Moment) -> Option<Seen> {
    let Seen { first, parent, .. } = known;
    match found {
        Ok(None) => Some(Seen::new(first, parent, What::NoVm)),
        // Its TAPs may come as late after an `exec` as after a `fork`.
        Ok(Some(vm)) => Some(Seen::new(moment.now, parent, What::Vm(vm))),
        Err(Unread::Gone) => None,
        Err(Unread::Failed(error)) => Some(Seen::new(first, parent, What::Unreadable(error))),
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
