//! The looks for KVM in one scan, with a time budget of their own.

use std::time::{Duration, Instant};

use super::super::ask::Answer;
use super::super::due::{DueProcess, in_order};
use super::super::inspections::chunks;
use super::super::looks::TimePool;
use super::super::queries::{ProcessQuery, ProcessReply};
use super::super::scan::Scan;
use super::super::{ProcScan, ProcessEntry, ProcessKind};
use super::KvmFinding;
use crate::sources::SourceError;
use crate::sources::process::ReadError;

/// How long looks at processes of trusted users may take in a call. The first one finds all VMs of the host.
const TIME: Duration = Duration::from_millis(20);
const FIRST_TIME: Duration = Duration::from_secs(2);

impl ProcScan {
    /// Finds VMs among the processes that are none so far.
    pub fn look_for_kvm(&mut self, scan: &mut Scan) {
        let is_there = self.finds_kvm && self.host.kvm().exists();
        if !is_there {
            return;
        }
        let is_candidate = |entry: &ProcessEntry| match &entry.kind {
            ProcessKind::NoVm => true,
            // Another source names it, and it runs a VM only now.
            ProcessKind::Vm(vm) => !vm.is_listed && vm.runs_by_kvm(),
            ProcessKind::Unreadable(_) => false,
        };
        let is_due = |entry: &ProcessEntry| is_candidate(entry) && entry.kvm.is_due(scan.now);
        let mut due: Vec<DueProcess> = self
            .processes
            .extract_if(|_, entry| is_due(entry))
            .map(|(pid, known)| DueProcess { pid, uid: known.uid, known })
            .collect();
        due.sort_unstable_by_key(|due| (due.known.kvm.next(), due.pid));
        let (due, strangers) = in_order(due, |uid| self.trust.is_trusted(uid));
        let (began, time) = (Instant::now(), if scan.is_first { FIRST_TIME } else { TIME });
        for due in chunks(due) {
            if began.elapsed() < time {
                self.look_for_kvm_at(due, scan);
            } else {
                self.put_off(due, scan);
            }
        }
        for due in chunks(strangers) {
            let (now, later) = due.into_iter().partition(|due| self.kvm_looks.is_room(due.uid));
            self.look_for_kvm_at(now, scan);
            self.put_off(later, scan);
        }
        self.tell_of_refused(scan);
    }

    /// Reports only long waits: most processes will never be VMs.
    fn put_off(&mut self, due: Vec<DueProcess>, scan: &Scan) {
        for DueProcess { pid, uid, known } in due {
            if known.kvm.is_late(scan.now) {
                self.overuse.add(uid, "processes", 1);
            }
            self.processes.insert(pid, known);
        }
    }

    fn look_for_kvm_at(&mut self, due: Vec<DueProcess>, scan: &mut Scan) {
        let question = |due: &DueProcess| ProcessQuery::Kvm(due.known.kvm.progress().cloned());
        let asked: Vec<_> = due.iter().map(|due| (due.pid, due.uid, question(due))).collect();
        let answers = self.ask(asked, TimePool::Kvm, scan);
        // All are there again before one is asked for the process from which it has come.
        self.processes.extend(due.into_iter().map(|due| (due.pid, due.known)));
        for Answer { pid, reply, took, .. } in answers {
            let has_kvm_parent = self.descends_from_kvm(pid);
            let Some(entry) = self.processes.get_mut(&pid) else { continue };
            let Some(ProcessReply::Kvm(found)) = reply else {
                entry.kvm.no_answer(scan.now);
                continue;
            };
            match found {
                Ok(KvmFinding::Unfinished(progress)) => entry.kvm.goes_on(took, progress),
                Ok(KvmFinding::Nothing) => entry.kvm.found_no_vm(scan.now, took, false),
                Ok(KvmFinding::Refused) => entry.kvm.refused(scan.now),
                Ok(KvmFinding::Holds) => entry.kvm.found_no_vm(scan.now, took, true),
                // The VM is that of its parent, for all that is known.
                Ok(KvmFinding::Vm(_, false)) if has_kvm_parent => {
                    entry.kvm.found_no_vm(scan.now, took, true);
                }
                Ok(KvmFinding::Vm(mut vm, is_certain)) => {
                    if entry.kvm.runs(scan.now, is_certain) || (is_certain && scan.is_first) {
                        vm.is_found_by_kvm = true;
                        (entry.first, entry.kind) = (scan.now, ProcessKind::Vm(vm));
                        self.leave_ancestors(pid);
                    }
                }
                Err(ReadError::Gone) => drop(self.processes.remove(&pid)),
                Err(ReadError::Failed(error)) => {
                    entry.kvm.found_no_vm(scan.now, took, false);
                    scan.problems.push(error);
                }
            }
        }
    }

    /// Whether a process from which this one has come holds something of KVM, which a fork shares.
    fn descends_from_kvm(&self, pid: u32) -> bool {
        let parent = self.processes.get(&pid).and_then(|entry| self.processes.get(&entry.parent?));
        parent.is_some_and(|parent| parent.kvm.holds()) || self.ancestor(pid).is_some()
    }

    fn tell_of_refused(&self, scan: &mut Scan) {
        let count = self.processes.values().filter(|entry| entry.kvm.is_refused()).count();
        if count > 0 {
            let problem = format!(
                "KVM VMs of programs that are not known by name are not found among {count} processes: their \
                descriptors may not be read (CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH)"
            );
            scan.problems.push(SourceError::content(self.host.proc(), problem));
        }
    }
}
