//! Looks at processes in one scan: quickly at all, closely at those due.

use std::mem;
use std::time::Duration;

use super::due::{self, DueProcess, QuickResult};
use super::holdings::HoldingsUpdate;
use super::inspect::ProcessVm;
use super::looks::TimePool;
use super::program_file::ProgramFile;
use super::queries::{ProcessQuery, ProcessReply, QuickReading};
use super::scan::Scan;
use super::{ProcScan, ProcessEntry, ProcessKind};
use crate::model::Hypervisor;
use crate::sources::process::{ProcessDir, ReadError};

/// Looks at processes of strangers between two looks at the time that they have used.
const LOOKS_AT_ONCE: usize = 8;

impl ProcScan {
    /// The processes that are to be looked at closely.
    pub(super) fn look_quickly(&mut self, pids: Vec<u32>, scan: &mut Scan) -> Vec<DueProcess> {
        let mut before = mem::take(&mut self.processes);
        let mut asked = Vec::new();
        for pid in &pids {
            let known = before.get(pid);
            if let Some(wanted) = due::wanted(known, scan, self.named.contains(pid)) {
                let uid = known.map_or_else(|| ProcessDir::new(&self.host, *pid).owner(), |entry| entry.uid);
                asked.push((*pid, uid, ProcessQuery::Quick(wanted)));
            }
        }
        let mut answers = self.ask(asked, TimePool::Vms, scan).into_iter().peekable();
        let mut due = Vec::new();
        for pid in pids {
            let answer = answers.next_if(|answer| answer.pid == pid);
            let uid = answer.as_ref().and_then(|answer| answer.uid);
            // A process that does not answer keeps its state.
            let facts = match answer.and_then(|answer| answer.reply) {
                Some(ProcessReply::Quick(facts)) => facts,
                _ => QuickReading::default(),
            };
            match due::judge(before.remove(&pid), facts, uid, scan, self.named.contains(&pid)) {
                QuickResult::Gone(ended) => scan.ended.extend(ended),
                QuickResult::Same(entry) => drop(self.processes.insert(pid, entry)),
                QuickResult::Failed(entry, error) => {
                    scan.problems.push(error);
                    self.processes.insert(pid, entry);
                }
                QuickResult::Due(known, ended) => {
                    scan.ended.extend(ended);
                    due.push(DueProcess { pid, uid: known.uid, known });
                }
            }
        }
        scan.ended.extend(before.into_values());
        due
    }

    /// Those of strangers for whom there is time. The others wait for the next call.
    pub(super) fn those_with_room(&mut self, due: Vec<DueProcess>) -> Vec<DueProcess> {
        let has_room = |due: &DueProcess| self.has_room(due.uid, TimePool::Vms);
        let (now, later): (Vec<_>, Vec<_>) = due.into_iter().partition(has_room);
        self.processes.extend(later.into_iter().map(|due| (due.pid, due.known.waiting())));
        now
    }

    pub(super) fn look_closely(&mut self, due: Vec<DueProcess>, scan: &mut Scan) {
        let question = |due: &DueProcess| match due.known.vm() {
            Some(vm) => ProcessQuery::of(vm),
            None => ProcessQuery::New { is_named: self.named.contains(&due.pid) },
        };
        let asked: Vec<_> = due.iter().map(|due| (due.pid, due.uid, question(due))).collect();
        let answers = self.ask(asked, TimePool::Vms, scan);
        for (DueProcess { pid, known, .. }, answer) in due.into_iter().zip(answers) {
            let entry = match answer.reply {
                // Without an answer or time it keeps its state, and comes first in the next scan.
                None => Some(known.waiting()),
                Some(ProcessReply::Vm(program, held)) => self.update_vm(known, program, held, scan),
                Some(ProcessReply::New(found)) => new_vm(known, found, scan.now),
                Some(_) => Some(ProcessEntry { waits: 0, ..known }),
            };
            self.processes.extend(entry.map(|entry| (pid, entry)));
        }
    }

    /// A failed read keeps the state of the VM.
    fn update_vm(
        &self,
        known: ProcessEntry,
        program: Option<ProgramFile>,
        held: Result<HoldingsUpdate, ReadError>,
        scan: &mut Scan,
    ) -> Option<ProcessEntry> {
        let mut entry = ProcessEntry { waits: 0, ..known };
        let ProcessKind::Vm(vm) = &mut entry.kind else { return Some(entry) };
        let pid = vm.pid;
        let left = vm.program.as_ref().zip(program.as_ref()).is_some_and(|(was, is)| was.was_left_for(is));
        let is_unwanted = !vm.is_listed && !self.named.contains(&pid);
        let next = ProcessEntry::new(entry.first, entry.uid, entry.parent, ProcessKind::NoVm);
        if left || is_unwanted {
            scan.ended.push(entry);
            return Some(next);
        }
        let before = vm.info.nics.clone();
        match held {
            Ok(now) => vm.take_now(now),
            Err(ReadError::Gone) => {
                scan.ended.push(entry);
                return None;
            }
            Err(ReadError::Failed(error)) => scan.problems.push(error),
        }
        // Any other program is part of a VM only as long as it holds a device of it.
        let by_kvm = matches!(vm.info.hypervisor, Hypervisor::Program(_));
        let is_other =
            (by_kvm || program.is_some_and(|program| !program.is_hypervisor())) && !vm.runs_by_kvm();
        let is_known_whole = vm.progress().is_none();
        if vm.is_listed && is_other && is_known_whole && vm.info.nics.is_empty() {
            scan.ended.push(entry);
            return Some(next);
        }
        let lost: Vec<_> = before.into_iter().filter(|nic| !vm.info.nics.contains(nic)).collect();
        if !lost.is_empty() || !vm.heirs.is_empty() {
            scan.lost.push((pid, lost));
        }
        Some(entry)
    }

    /// Reads the devices of these processes. Looks at untrusted users use their time.
    pub(super) fn holders(&mut self, pids: &[u32], pool: TimePool, scan: &Scan) -> HolderSearch {
        let mut holders = HolderSearch::default();
        for pid in pids {
            let uid = self.processes.get(pid).and_then(|entry| entry.uid);
            if !self.has_room(uid, pool) {
                holders.unknown.push(*pid);
                continue;
            }
            let question = ProcessQuery::Holder(self.unfinished_looks.remove(pid));
            match self.ask_one((*pid, uid), question, pool, scan) {
                Some(ProcessReply::New(Ok(Some(vm)))) => match vm.progress() {
                    // It may hold more than was found so far.
                    Some(progress) => {
                        self.unfinished_looks.insert(*pid, progress.clone());
                        holders.unknown.push(*pid);
                    }
                    None => holders.found.push(*vm),
                },
                Some(_) => {}
                None => holders.unknown.push(*pid),
            }
        }
        holders
    }

    /// Reads a process by its present program, as a VM or as a holder of devices.
    pub(super) fn program(&mut self, pid: u32, scan: &Scan) -> Option<ProcessVm> {
        let uid = self.processes.get(&pid)?.uid;
        if !self.has_room(uid, TimePool::Vms) {
            return None;
        }
        match self.ask_one((pid, uid), ProcessQuery::New { is_named: false }, TimePool::Vms, scan)? {
            ProcessReply::New(Ok(Some(vm))) => Some(*vm),
            _ => self.holders(&[pid], TimePool::Vms, scan).found.pop(),
        }
    }
}

/// The devices of some processes.
#[derive(Debug, Default)]
pub struct HolderSearch {
    pub found: Vec<ProcessVm>,
    /// Those that have not answered, or for which their users had no time left.
    pub unknown: Vec<u32>,
}

/// The entry of a process after its first close look; `None` when it is gone.
fn new_vm(
    known: ProcessEntry,
    found: Result<Option<Box<ProcessVm>>, ReadError>,
    now: Duration,
) -> Option<ProcessEntry> {
    let (first, kind) = match found {
        Ok(None) => (known.first, ProcessKind::NoVm),
        // Its TAPs may come as late after an `exec` as after a `fork`.
        Ok(Some(vm)) => (now, ProcessKind::Vm(vm)),
        Err(ReadError::Gone) => return None,
        Err(ReadError::Failed(error)) => (known.first, ProcessKind::Unreadable(error)),
    };
    Some(ProcessEntry { first, kind, waits: 0, ..known })
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
