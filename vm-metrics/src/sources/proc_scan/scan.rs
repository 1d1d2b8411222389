//! Looks at processes in one scan: quickly at all, closely at those due.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use super::due::{self, DueProcess, QuickResult};
use super::holdings::HoldingsUpdate;
use super::inspect::ProcessVm;
use super::looks::TimePool;
use super::observer::Observer;
use super::program_file::ProgramFile;
use super::queries::{ProcessQuery, ProcessReply, QuickReading};
use super::{Findings, ProcScan, ProcessEntry, ProcessKind, ScanContext};
use crate::model::Hypervisor;
use crate::sources::process::{ProcessDir, ReadError};

/// Looks at processes of strangers between two looks at the time that they have used.
const LOOKS_AT_ONCE: usize = 8;

impl ProcScan {
    /// The processes that are to be looked at closely.
    pub(super) fn look_quickly(
        &mut self,
        pids: Vec<u32>,
        context: &ScanContext,
        observer: &Arc<Observer>,
        findings: &mut Findings,
    ) -> Vec<DueProcess> {
        let mut before = mem::take(&mut self.processes);
        let is_named = |pid: &u32| self.named.contains(pid);
        let mut asked = Vec::new();
        for pid in &pids {
            if let Some(wanted) = due::wanted(before.get(pid), context, is_named(pid)) {
                let known = before.get(pid).map(|entry| entry.uid);
                let uid = known.unwrap_or_else(|| ProcessDir::new(&self.host, *pid).owner());
                asked.push((*pid, uid, ProcessQuery::Quick(wanted)));
            }
        }
        let users: HashMap<u32, Option<u32>> = asked.iter().map(|(pid, uid, _)| (*pid, *uid)).collect();
        let asked_pids: Vec<u32> = asked.iter().map(|(pid, ..)| *pid).collect();
        let answers = self.ask(asked, TimePool::Vms, observer);
        let answers = asked_pids.into_iter().zip(answers).filter_map(|(pid, answer)| Some((pid, answer?.0)));
        let mut answers: HashMap<u32, ProcessReply> = answers.collect();
        let mut due = Vec::new();
        for pid in pids {
            // A process that does not answer keeps its state.
            let facts = match answers.remove(&pid) {
                Some(ProcessReply::Quick(facts)) => facts,
                _ => QuickReading::default(),
            };
            let uid = users.get(&pid).copied().flatten();
            match due::judge(before.remove(&pid), facts, uid, context, self.named.contains(&pid)) {
                QuickResult::Gone(ended) => findings.ended.extend(ended.map(|entry| (pid, entry))),
                QuickResult::Same(entry) => drop(self.processes.insert(pid, entry)),
                QuickResult::Failed(entry, error) => {
                    findings.problems.push(error);
                    self.processes.insert(pid, entry);
                }
                QuickResult::Due(known, ended) => {
                    findings.ended.extend(ended.map(|entry| (pid, entry)));
                    due.push(DueProcess { pid, uid: known.uid, known });
                }
            }
        }
        findings.ended.extend(before);
        due
    }

    /// Those of strangers for whom there is time. The others wait for the next call.
    pub(super) fn those_with_room(&mut self, due: Vec<DueProcess>) -> Vec<DueProcess> {
        let (now, later): (Vec<_>, Vec<_>) = due.into_iter().partition(|due| self.looks.is_room(due.uid));
        for DueProcess { pid, uid, known } in later {
            self.overuse.add(uid, "processes", 1);
            self.processes.insert(pid, ProcessEntry { waits: known.waits + 1, ..known });
        }
        now
    }

    pub(super) fn look_closely(
        &mut self,
        due: Vec<DueProcess>,
        observer: &Arc<Observer>,
        context: &ScanContext,
        findings: &mut Findings,
    ) {
        let question = |due: &DueProcess| match due.known.vm() {
            Some(vm) => ProcessQuery::of(vm),
            None => ProcessQuery::New { is_named: self.named.contains(&due.pid) },
        };
        let asked: Vec<_> = due.iter().map(|due| (due.pid, due.uid, question(due))).collect();
        let answers = self.ask(asked, TimePool::Vms, observer);
        for (DueProcess { pid, known, .. }, answer) in due.into_iter().zip(answers) {
            let Some((answer, _)) = answer else {
                // Without an answer or time it keeps its state, and comes first in the next scan.
                self.processes.insert(pid, ProcessEntry { waits: known.waits + 1, ..known });
                continue;
            };
            let entry = match answer {
                ProcessReply::Vm(program, held) => {
                    self.update_vm(pid, known, program, held, observer, findings)
                }
                ProcessReply::New(found) => new_vm(known, found, context),
                ProcessReply::Quick(_)
                | ProcessReply::Holder(_)
                | ProcessReply::Held(_)
                | ProcessReply::Kvm(_) => Some(known),
            };
            self.processes.extend(entry.map(|entry| (pid, ProcessEntry { waits: 0, ..entry })));
        }
    }

    /// A failed read keeps the state of the VM.
    fn update_vm(
        &self,
        pid: u32,
        mut entry: ProcessEntry,
        program: Option<ProgramFile>,
        held: Result<HoldingsUpdate, ReadError>,
        observer: &Observer,
        findings: &mut Findings,
    ) -> Option<ProcessEntry> {
        let ProcessKind::Vm(vm) = &mut entry.kind else { return Some(entry) };
        let left = vm.program.as_ref().zip(program.as_ref()).is_some_and(|(was, is)| was.was_left_for(is));
        let is_unwanted = !vm.is_listed && !self.named.contains(&pid);
        let next = ProcessEntry::new(entry.first, entry.uid, entry.parent, ProcessKind::NoVm);
        if left || is_unwanted {
            findings.ended.push((pid, entry));
            return Some(next);
        }
        let before = vm.info.nics.clone();
        match held {
            Ok(now) => vm.take_now(pid, observer, now),
            Err(ReadError::Gone) => {
                findings.ended.push((pid, entry));
                return None;
            }
            Err(ReadError::Failed(error)) => findings.problems.push(error),
        }
        // Any other program is part of a VM only as long as it holds a device of it.
        let by_kvm = matches!(vm.info.hypervisor, Hypervisor::Program(_));
        let is_other =
            (by_kvm || program.is_some_and(|program| !program.is_hypervisor())) && !vm.runs_by_kvm();
        let is_known_whole = vm.progress().is_none();
        if vm.is_listed && is_other && is_known_whole && vm.info.nics.is_empty() {
            findings.ended.push((pid, entry));
            return Some(next);
        }
        let lost: Vec<_> = before.into_iter().filter(|nic| !vm.info.nics.contains(nic)).collect();
        if !lost.is_empty() || !vm.heirs.is_empty() {
            findings.lost.push((pid, lost));
        }
        Some(entry)
    }

    /// Reads the devices of these processes. Looks at untrusted users use their time.
    pub(super) fn holders(&mut self, pids: &[u32], pot: TimePool, observer: &Arc<Observer>) -> HolderSearch {
        let mut holders = HolderSearch::default();
        for pid in pids {
            let uid = self.processes.get(pid).and_then(|entry| entry.uid);
            if !self.has_room(uid, pot) {
                holders.unknown.push(*pid);
                continue;
            }
            let question = ProcessQuery::Holder(self.unfinished_looks.remove(pid));
            let answer = self.ask(vec![(*pid, uid, question)], pot, observer).pop().flatten();
            match answer {
                Some((ProcessReply::Holder(Some(vm)), _)) => match vm.progress() {
                    // It may hold more than was found so far.
                    Some(progress) => {
                        self.unfinished_looks.insert(*pid, progress.clone());
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

    /// Reads a process by its present program, as a VM or as a holder of devices.
    pub(super) fn program(&mut self, pid: u32, observer: &Arc<Observer>) -> Option<ProcessVm> {
        let uid = self.processes.get(&pid)?.uid;
        if !self.has_room(uid, TimePool::Vms) {
            return None;
        }
        let asked = vec![(pid, uid, ProcessQuery::New { is_named: false })];
        let answer = self.ask(asked, TimePool::Vms, observer).pop()??;
        match answer.0 {
            ProcessReply::New(Ok(Some(vm))) => Some(*vm),
            _ => self.holders(&[pid], TimePool::Vms, observer).found.pop().map(|(_, holder)| holder),
        }
    }
}

/// The devices of some processes.
#[derive(Debug, Default)]
pub struct HolderSearch {
    pub found: Vec<(u32, ProcessVm)>,
    /// Those that have not answered, or for which their users had no time left.
    pub unknown: Vec<u32>,
}

/// The entry of a process after its first close look; `None` when it is gone.
fn new_vm(
    known: ProcessEntry,
    found: Result<Option<Box<ProcessVm>>, ReadError>,
    context: &ScanContext,
) -> Option<ProcessEntry> {
    let first = known.first;
    let entry = |first, kind| Some(ProcessEntry { first, kind, waits: 0, ..known });
    match found {
        Ok(None) => entry(first, ProcessKind::NoVm),
        // Its TAPs may come as late after an `exec` as after a `fork`.
        Ok(Some(vm)) => entry(context.now, ProcessKind::Vm(vm)),
        Err(ReadError::Gone) => None,
        Err(ReadError::Failed(error)) => entry(first, ProcessKind::Unreadable(error)),
    }
}

/// So few that each user has a turn before the time is over.
pub fn chunks(mut due: Vec<DueProcess>) -> Vec<Vec<DueProcess>> {
    let mut chunks = Vec::new();
    while !due.is_empty() {
        let rest = due.split_off(due.len().min(LOOKS_AT_ONCE));
        chunks.push(mem::replace(&mut due, rest));
    }
    chunks
}
