//! The looks for KVM in one call: after all others, and within a time of their own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::ask::{Answer, Question};
use super::super::due::{Due, in_order};
use super::super::looks::Pot;
use super::super::observer::Observer;
use super::super::scan::chunks;
use super::super::{Findings, Moment, ProcScan, Seen, What};
use super::Found;
use crate::sources::SourceError;
use crate::sources::process::Unread;

/// How long looks at processes of trusted users may take in a call. The first one finds all VMs of the host.
const TIME: Duration = Duration::from_millis(20);
const FIRST_TIME: Duration = Duration::from_secs(2);

impl ProcScan {
    /// Finds VMs among the processes that are none so far.
    pub fn look_for_kvm(&mut self, observer: &Arc<Observer>, moment: &Moment, findings: &mut Findings) {
        let is_there = self.finds_kvm && self.host.kvm().exists();
        if !is_there {
            return;
        }
        let is_candidate = |seen: &Seen| match &seen.what {
            What::NoVm => true,
            // Another source names it, and it runs a VM only now.
            What::Vm(vm) => !vm.is_listed && vm.runs_by_kvm(),
            What::Unreadable(_) => false,
        };
        let is_due = |seen: &Seen| is_candidate(seen) && seen.kvm.is_due(moment.now);
        let mut due: Vec<Due> = self
            .seen
            .extract_if(|_, seen| is_due(seen))
            .map(|(pid, known)| Due { pid, uid: known.uid, known })
            .collect();
        due.sort_unstable_by_key(|due| (due.known.kvm.next(), due.pid));
        let mut due = in_order(due, |uid| self.trust.is_trusted(uid));
        let strangers = due.split_off(due.partition_point(|due| self.trust.is_trusted(due.uid)));
        let (began, time) = (Instant::now(), if moment.is_first { FIRST_TIME } else { TIME });
        for due in chunks(due) {
            if began.elapsed() < time {
                self.look_for_kvm_at(due, observer, moment, findings);
            } else {
                self.put_off(due, moment);
            }
        }
        for due in chunks(strangers) {
            let (now, later) = due.into_iter().partition(|due| self.kvm_looks.is_room(due.uid));
            self.look_for_kvm_at(now, observer, moment, findings);
            self.put_off(later, moment);
        }
        self.tell_of_refused(findings);
    }

    /// Only what waits for long is told of: most processes will never be VMs.
    fn put_off(&mut self, due: Vec<Due>, moment: &Moment) {
        for Due { pid, uid, known } in due {
            if known.kvm.is_late(moment.now) {
                self.overuse.add(uid, "processes", 1);
            }
            self.seen.insert(pid, known);
        }
    }

    fn look_for_kvm_at(
        &mut self,
        due: Vec<Due>,
        observer: &Arc<Observer>,
        moment: &Moment,
        findings: &mut Findings,
    ) {
        let question = |due: &Due| Question::Kvm(due.known.kvm.part().cloned());
        let asked: Vec<_> = due.iter().map(|due| (due.pid, due.uid, question(due))).collect();
        let answers = self.ask(asked, Pot::Kvm, observer);
        // All are there again before one is asked for the process from which it has come.
        let pids: Vec<u32> = due.iter().map(|due| due.pid).collect();
        self.seen.extend(due.into_iter().map(|due| (due.pid, due.known)));
        for (pid, answer) in pids.into_iter().zip(answers) {
            let has_kvm_parent = self.descends_from_kvm(pid);
            let Some(seen) = self.seen.get_mut(&pid) else { continue };
            let Some((Answer::Kvm(found), took)) = answer else {
                seen.kvm.no_answer(moment.now);
                continue;
            };
            match found {
                Ok(Found::Part(part)) => seen.kvm.goes_on(took, part),
                Ok(Found::Nothing) => seen.kvm.found_no_vm(moment.now, took, false),
                Ok(Found::Refused) => seen.kvm.refused(moment.now),
                Ok(Found::Holds) => seen.kvm.found_no_vm(moment.now, took, true),
                // The VM is that of its parent, for all that is known.
                Ok(Found::Vm(_, false)) if has_kvm_parent => seen.kvm.found_no_vm(moment.now, took, true),
                Ok(Found::Vm(mut vm, is_certain)) => {
                    if seen.kvm.runs(moment.now, is_certain) || (is_certain && moment.is_first) {
                        vm.is_found_by_kvm = true;
                        (seen.first, seen.what) = (moment.now, What::Vm(vm));
                        self.leave_ancestors(pid);
                    }
                }
                Err(Unread::Gone) => drop(self.seen.remove(&pid)),
                Err(Unread::Failed(error)) => {
                    seen.kvm.found_no_vm(moment.now, took, false);
                    findings.problems.push(error);
                }
            }
        }
    }

    /// Whether a process from which this one has come holds something of KVM, which a fork shares.
    fn descends_from_kvm(&self, pid: u32) -> bool {
        let parent = self.seen.get(&pid).and_then(|seen| self.seen.get(&seen.parent?));
        parent.is_some_and(|parent| parent.kvm.holds()) || self.ancestor(pid).is_some()
    }

    fn tell_of_refused(&self, findings: &mut Findings) {
        let count = self.seen.values().filter(|seen| seen.kvm.is_refused()).count();
        if count > 0 {
            let problem = format!(
                "KVM VMs of programs that are not known by name are not found among {count} processes: their \
                descriptors may not be read (CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH)"
            );
            findings.problems.push(SourceError::content(self.host.proc(), problem));
        }
    }
}
