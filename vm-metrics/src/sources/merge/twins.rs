//! Finds the record of each VM that claims an id: by process, then by fingerprint.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::fingerprints::{Fingerprints, LEVELS};
use crate::model::Nic;

/// No fingerprint distinguishes the VM: only its process does.
const BY_PROCESS: usize = LEVELS;

/// A process of this boot.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ProcessKey {
    pub pid: u32,
    /// `None` where it is unknown.
    pub start_ticks: Option<u64>,
}

/// A VM that claims an id.
#[derive(Clone, Debug)]
pub struct Claimant {
    pub process: ProcessKey,
    pub uid: Option<u32>,
    /// The process that was this VM before.
    pub came_from: Option<ProcessKey>,
    /// `None` where nothing is known of the process.
    pub fingerprints: Option<Fingerprints>,
}

/// The record of a VM that claims an id, or did.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct IdRecord {
    /// The id that it has; empty until it is given one.
    pub given: String,
    pub fingerprints: [u64; LEVELS],
    /// The fingerprint that tells it from the others of its id, or [`BY_PROCESS`].
    pub level: usize,
    /// `None` after a boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessKey>,
    /// Whose process it is, or was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// In seconds of Unix time; `None` while the VM is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    /// Its last NICs, where other VMs have its id.
    #[serde(skip)]
    pub nics: Vec<Nic>,
}

impl ProcessKey {
    fn is(self, other: Self) -> bool {
        let starts = self.start_ticks.zip(other.start_ticks);
        self.pid == other.pid && starts.is_none_or(|(one, other)| one == other)
    }
}

impl IdRecord {
    fn new(claimant: &Claimant) -> Self {
        Self {
            given: String::new(),
            fingerprints: claimant.numbers(),
            level: 0,
            process: Some(claimant.process),
            uid: claimant.uid,
            ended: None,
            nics: Vec::new(),
        }
    }

    pub fn is_process(&self, process: ProcessKey) -> bool {
        self.process.is_some_and(|known| known.is(process))
    }

    /// Whether a VM of these fingerprints may be this one.
    fn matches(&self, fingerprints: &[u64; LEVELS]) -> bool {
        self.level != BY_PROCESS && self.fingerprints[self.level] == fingerprints[self.level]
    }

    /// Looks closer until a VM of these fingerprints is another one.
    fn exclude(&mut self, fingerprints: &[u64; LEVELS]) {
        while self.matches(fingerprints) {
            self.level += 1;
        }
    }

    /// The text that its suffix is a hash of.
    pub fn telling(&self, boot_id: &str) -> String {
        match (self.fingerprints.get(self.level), self.process) {
            (Some(fingerprint), _) => format!("{fingerprint:016x}"),
            (None, Some(ProcessKey { pid, start_ticks })) => {
                format!("{boot_id} {pid} {}", start_ticks.unwrap_or_default())
            }
            (None, None) => boot_id.to_owned(),
        }
    }

    fn is_same_tombstone(&self, other: &Self) -> bool {
        let is_one = |record: &Self| record.ended.is_some() && record.level == BY_PROCESS;
        is_one(self) && is_one(other) && self.fingerprints == other.fingerprints
    }
}

impl Claimant {
    fn numbers(&self) -> [u64; LEVELS] {
        self.fingerprints.map(Fingerprints::numbers).unwrap_or_default()
    }
}

/// Where the record of a claimant is.
#[derive(Clone, Copy, Debug)]
pub struct Assignment {
    pub record: usize,
    /// Known by its process, and not by claims.
    pub is_known: bool,
}

/// Finds the record of each claimant, or makes one. The start order of the VMs decides nothing.
///
/// No two records match the same VM: each compares as many facts as that needs.
pub fn assign(records: &mut Vec<IdRecord>, claimants: &[Claimant]) -> Vec<Assignment> {
    let known = by_process(records, claimants);
    let mut is_held = vec![false; records.len()];
    known.iter().flatten().for_each(|at| is_held[*at] = true);
    let are_all_known = known.iter().all(Option::is_some);
    if !are_all_known {
        let newcomers: Vec<_> = claimants
            .iter()
            .zip(&known)
            .filter(|(_, known)| known.is_none())
            .map(|(one, _)| one.numbers())
            .collect();
        look_closer(records, &is_held, &newcomers);
    }
    let mut changed = !are_all_known;
    let mut assigned = Vec::new();
    for (claimant, known) in claimants.iter().zip(known) {
        let numbers = claimant.numbers();
        let by_fingerprint = || (0..is_held.len()).find(|at| !is_held[*at] && records[*at].matches(&numbers));
        let at = known.or_else(by_fingerprint).unwrap_or_else(|| {
            records.push(IdRecord::new(claimant));
            is_held.push(true);
            records.len() - 1
        });
        is_held[at] = true;
        let record = &mut records[at];
        (record.process, record.uid, record.ended) = (Some(claimant.process), claimant.uid, None);
        if claimant.fingerprints.is_some() && record.fingerprints != numbers {
            record.fingerprints = numbers;
            changed = true;
        }
        assigned.push(Assignment { record: at, is_known: known.is_some() });
    }
    if changed {
        tell_apart(records);
    }
    assigned
}

/// A process is the VM that it was, and so is one that has come from it.
fn by_process(records: &[IdRecord], claimants: &[Claimant]) -> Vec<Option<usize>> {
    let places: HashMap<u32, usize> =
        records.iter().enumerate().filter_map(|(at, record)| Some((record.process?.pid, at))).collect();
    let place =
        |process: ProcessKey| places.get(&process.pid).copied().filter(|at| records[*at].is_process(process));
    let mut known: Vec<_> = claimants.iter().map(|claimant| place(claimant.process)).collect();
    for (at, claimant) in claimants.iter().enumerate() {
        let heir_of = claimant.came_from.and_then(place);
        if known[at].is_none() && heir_of.is_some() && !known.contains(&heir_of) {
            known[at] = heir_of;
        }
    }
    known
}

/// A record that has its process matches no newcomer, and any other one at most.
fn look_closer(records: &mut [IdRecord], is_held: &[bool], newcomers: &[[u64; LEVELS]]) {
    for (record, is_held) in records.iter_mut().zip(is_held) {
        let allowed = usize::from(!is_held);
        while newcomers.iter().filter(|numbers| record.matches(numbers)).count() > allowed {
            record.level += 1;
        }
    }
}

/// Looks at each record closer until it matches no other one.
pub fn tell_apart(records: &mut [IdRecord]) {
    for at in 0..records.len() {
        let numbers = records[at].fingerprints;
        for other in (0..records.len()).filter(|other| *other != at) {
            records[other].exclude(&numbers);
        }
    }
}

/// The latest of indistinguishable ended VMs stands for all.
pub fn forget_tombstones(records: &mut Vec<IdRecord>) {
    let mut at = 0;
    while at < records.len() {
        let is_later = |other: &IdRecord| other.ended > records[at].ended;
        let stands_for_it = |(index, other): (usize, &IdRecord)| {
            other.is_same_tombstone(&records[at])
                && (is_later(other) || other.ended == records[at].ended && index > at)
        };
        if records.iter().enumerate().any(stands_for_it) {
            records.remove(at);
        } else {
            at += 1;
        }
    }
}
