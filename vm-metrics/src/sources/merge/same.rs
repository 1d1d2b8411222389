//! Which entries of several sources are the same VM.

use std::collections::HashMap;
use std::mem;

use super::super::Precedence;
use super::VmEntry;
use super::evidence::{Evidence, LocalDevice};
use super::ids::IdAssigner;
use super::nics::NicHolders;
use crate::model::Nic;

/// The entries of each VM, in order.
#[derive(Debug)]
pub struct Groups<'e> {
    entries: &'e [VmEntry],
    evidence: Evidence<'e>,
    /// Each has one entry of a source at most. One that has gone into another is empty.
    members: Vec<Vec<usize>>,
    /// Where each entry is.
    of: Vec<usize>,
}

impl<'e> Groups<'e> {
    /// Also returns problems with their sources. Of two entries of one source with one process, the later is left out.
    pub fn new(
        entries: &'e [VmEntry],
        holders: &NicHolders,
        ids: &IdAssigner,
        evidence: Evidence<'e>,
    ) -> (Self, Vec<(usize, String)>) {
        let of: Vec<_> = (0..entries.len()).collect();
        let members = of.iter().map(|at| vec![*at]).collect();
        let mut groups = Self { entries, evidence, members, of };
        let mut problems = groups.join_by_process();
        problems.extend(groups.join_by_id(ids));
        groups.join_by_nic(holders);
        groups.leave_out_lone_answers();
        (groups, problems)
    }

    pub fn iter(&self) -> impl Iterator<Item = Vec<&'e VmEntry>> {
        let groups = self.members.iter().filter(|members| !members.is_empty());
        groups.map(|members| members.iter().map(|at| &self.entries[*at]).collect())
    }

    fn join_by_process(&mut self) -> Vec<(usize, String)> {
        let mut first = HashMap::new();
        let mut problems = Vec::new();
        for (at, VmEntry { source, info, .. }) in self.entries.iter().enumerate() {
            let Some(pid) = info.hypervisor_pid else { continue };
            let known = *first.entry(pid).or_insert(at);
            if !self.join(known, at) {
                let holder = &self.entries[self.members[self.of[known]][0]].info.id;
                let problem = format!("{:?} left out: process {pid} is {holder:?} already", info.id);
                problems.push((*source, problem));
                self.members[at].clear();
            }
        }
        problems
    }

    fn join_by_id(&mut self, ids: &IdAssigner) -> Vec<(usize, String)> {
        let mut first = HashMap::new();
        let mut problems = Vec::new();
        for (at, VmEntry { source, info, .. }) in self.entries.iter().enumerate() {
            if info.id.is_empty() || self.members[self.of[at]].is_empty() {
                continue;
            }
            let first = *first.entry(info.id.as_str()).or_insert(at);
            if self.of[first] == self.of[at] || self.may_share_id(&info.id, self.of[first], self.of[at], ids)
            {
                self.join(first, at);
            } else if let Some(pid) = info.hypervisor_pid {
                let problem = format!(
                    "process {pid} claims the id {:?}: the claim does not count, since its user is not in [trust]",
                    info.id
                );
                problems.push((*source, problem));
            }
        }
        problems
    }

    /// Whether the same id makes two groups one VM. A process that only describes itself has an id of the operator's
    /// where its user is trusted, or had the VM before.
    fn may_share_id(&self, id: &str, one: usize, other: usize, ids: &IdAssigner) -> bool {
        let is_operators =
            |group: usize| self.members[group].iter().any(|at| self.entries[*at].precedence.is_operators());
        let (uid, other_uid) = (self.uid(&self.members[one]), self.uid(&self.members[other]));
        let may = |uid| self.evidence.trust.is_trusted(uid) || ids.was_of(id, uid);
        match (is_operators(one), is_operators(other)) {
            (true, true) => true,
            (true, false) => may(other_uid),
            (false, true) => may(uid),
            (false, false) => uid == other_uid,
        }
    }

    /// Who has no process is the one whose process holds its NIC. A name alone is not enough: in another network namespace
    /// it may be the TAP of any VM.
    fn join_by_nic(&mut self, holders: &NicHolders) {
        let mut groups = HashMap::new();
        let mut without = Vec::new();
        for group in self.members.iter().filter(|group| !group.is_empty()) {
            match self.process(group) {
                Some(pid) => drop(groups.insert(pid, group[0])),
                None => without.push((group[0], self.named_nics(group))),
            }
        }
        for (at, nics) in without {
            for holder in nics.iter().filter_map(|nic| groups.get(&holders.of(nic)?).copied()) {
                if self.join(holder, at) {
                    break;
                }
            }
        }
    }

    /// An answer whose process is not known is of no use by itself, unless a trusted user gives it.
    fn leave_out_lone_answers(&mut self) {
        for at in 0..self.members.len() {
            let members = &self.members[at];
            let is_answer = |at: &usize| self.entries[*at].precedence == Precedence::Vmm;
            let is_lone = self.process(members).is_none() && members.iter().all(is_answer);
            if is_lone && !self.evidence.trust.is_trusted(self.uid(members)) {
                self.members[at].clear();
            }
        }
    }

    /// Whether they are one VM now: not two of one source, nor two processes.
    fn join(&mut self, one: usize, other: usize) -> bool {
        let (into, from) = (self.of[one].min(self.of[other]), self.of[one].max(self.of[other]));
        if into == from {
            return true;
        }
        let (members, others) = (&self.members[into], &self.members[from]);
        let source = |at: &usize| self.entries[*at].source;
        let of_one_source = members.iter().any(|at| others.iter().any(|other| source(at) == source(other)));
        let two_processes = match (self.process(members), self.process(others)) {
            (Some(pid), Some(other)) => pid != other,
            _ => false,
        };
        if of_one_source || two_processes {
            return false;
        }
        let moved = mem::take(&mut self.members[from]);
        for at in &moved {
            self.of[*at] = into;
        }
        self.members[into].extend(moved);
        self.members[into].sort_unstable();
        true
    }

    fn process(&self, members: &[usize]) -> Option<u32> {
        members.iter().find_map(|at| self.entries[*at].info.hypervisor_pid)
    }

    /// By the kernel's word on the process, else by the source's.
    fn uid(&self, members: &[usize]) -> Option<u32> {
        let process = self.process(members).and_then(|pid| self.evidence.processes.get(&pid));
        let told = || members.iter().find_map(|at| self.entries[*at].info.uid);
        process.and_then(|process| process.uid).or_else(told)
    }

    /// The devices here that sources of the operator name.
    fn named_nics(&self, members: &[usize]) -> Vec<Nic> {
        let entries =
            members.iter().map(|at| &self.entries[*at]).filter(|entry| entry.precedence.is_operators());
        let nics = entries.flat_map(|entry| &entry.info.nics);
        nics.filter(|nic| (self.evidence.device)(&nic.tap) != LocalDevice::Other).cloned().collect()
    }
}
