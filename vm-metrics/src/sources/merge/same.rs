//! Which entries of several sources are the same VM.

use std::collections::HashMap;
use std::mem;

use super::super::Tier;
use crate::model::{InstanceInfo, Nic};

/// A VM as one source has it.
#[derive(Debug)]
pub struct Entry {
    pub source: usize,
    pub tier: Tier,
    pub has_ended: bool,
    pub info: InstanceInfo,
}

/// The entries of each VM, in order.
#[derive(Debug)]
pub struct Groups<'e> {
    entries: &'e [Entry],
    /// Each has one entry of a source at most. One that has gone into another is empty.
    members: Vec<Vec<usize>>,
    /// Where each entry is.
    of: Vec<usize>,
}

impl<'e> Groups<'e> {
    /// And what is wrong, with the source: of two entries of one source with the same process, the later is left out.
    pub fn new(entries: &'e [Entry]) -> (Self, Vec<(usize, String)>) {
        let of: Vec<_> = (0..entries.len()).collect();
        let mut groups = Self { entries, members: of.iter().map(|at| vec![*at]).collect(), of };
        let problems = groups.join_by_process();
        groups.join_by_id();
        groups.join_by_nic();
        (groups, problems)
    }

    pub fn iter(&self) -> impl Iterator<Item = Vec<&'e Entry>> {
        let groups = self.members.iter().filter(|members| !members.is_empty());
        groups.map(|members| members.iter().map(|at| &self.entries[*at]).collect())
    }

    fn join_by_process(&mut self) -> Vec<(usize, String)> {
        let mut first = HashMap::new();
        let mut problems = Vec::new();
        for (at, Entry { source, info, .. }) in self.entries.iter().enumerate() {
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

    fn join_by_id(&mut self) {
        let mut first = HashMap::new();
        for (at, Entry { info, .. }) in self.entries.iter().enumerate() {
            if !info.id.is_empty() && !self.members[self.of[at]].is_empty() {
                let first = *first.entry(info.id.as_str()).or_insert(at);
                self.join(first, at);
            }
        }
    }

    /// Who has no process is the one whose process has its NIC. A name alone is not enough: in another network namespace it
    /// may be the TAP of anybody.
    fn join_by_nic(&mut self) {
        let mut holders = HashMap::new();
        let mut without = Vec::new();
        for group in self.members.iter().filter(|group| !group.is_empty()) {
            let nics = self.nics(group);
            if self.process(group).is_none() {
                without.push((group[0], nics));
                continue;
            }
            for nic in nics {
                holders.entry(nic).or_insert(group[0]);
            }
        }
        for (at, nics) in without {
            for holder in nics.iter().filter_map(|nic| holders.get(nic).copied()) {
                if self.join(holder, at) {
                    break;
                }
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

    fn nics(&self, members: &[usize]) -> Vec<Nic> {
        nics(&members.iter().map(|at| &self.entries[*at]).collect::<Vec<_>>())
    }
}

/// The NICs of one VM: those of the first who is believed. No NICs at all means that an entry knows of none.
pub fn nics(entries: &[&Entry]) -> Vec<Nic> {
    let known = entries.iter().filter(|entry| !entry.info.nics.is_empty());
    let believed = known.min_by_key(|entry| entry.tier.nic_rank());
    let mut nics = believed.map(|entry| entry.info.nics.clone()).unwrap_or_default();
    for entry in entries {
        locate(&mut nics, &entry.info.nics);
    }
    nics
}

/// Who is believed may have said a name only: that is the device of this name that the process has, wherever it is.
fn locate(nics: &mut [Nic], held: &[Nic]) {
    for nic in nics {
        let elsewhere = |other: &&Nic| other.tap == nic.tap && other.netns.is_some();
        if nic.netns.is_some() || held.contains(nic) {
            continue;
        }
        if let [found] = held.iter().filter(elsewhere).collect::<Vec<_>>()[..] {
            *nic = found.clone();
        }
    }
}
