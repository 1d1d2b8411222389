//! Assigns NICs to VMs: by descriptors, then by claims of trusted sources.

use std::collections::{HashMap, HashSet};

use super::super::Precedence;
use super::VmEntry;
use super::evidence::{Evidence, LocalDevice, ProcessEvidence};
use crate::model::{Nic, is_device_name};

/// The process that each device is of, from merge to merge.
#[derive(Debug, Default)]
pub struct NicHolders(HashMap<Nic, u32>);

impl NicHolders {
    /// Of several processes that hold a device a hypervisor has it; of several of them the one that had it before, else a
    /// trusted user's, else the oldest.
    pub fn update(&mut self, pids: impl Iterator<Item = u32>, evidence: Evidence) {
        let mut candidates: HashMap<&Nic, Vec<(u32, &ProcessEvidence)>> = HashMap::new();
        for pid in pids {
            let Some(process) = evidence.processes.get(&pid) else { continue };
            for nic in &process.nics {
                candidates.entry(nic).or_default().push((pid, process));
            }
        }
        let first = |(nic, holders): (&&Nic, &Vec<(u32, &ProcessEvidence)>)| {
            let rank = |(pid, process): &&(u32, &ProcessEvidence)| {
                let had_it = self.0.get(*nic) == Some(pid);
                (
                    process.is_holder,
                    !had_it,
                    !evidence.trust.is_trusted(process.uid),
                    process.start_ticks,
                    *pid,
                )
            };
            Some(((**nic).clone(), holders.iter().min_by_key(rank)?.0))
        };
        self.0 = candidates.iter().filter_map(first).collect();
    }

    pub fn of(&self, nic: &Nic) -> Option<u32> {
        self.0.get(nic).copied()
    }
}

/// The NICs of one VM, and the refused claims of its sources.
pub fn nics(entries: &[&VmEntry], holders: &NicHolders, evidence: Evidence) -> (Vec<Nic>, Vec<String>) {
    let pid = entries.iter().find_map(|entry| entry.info.hypervisor_pid);
    let process = pid.and_then(|pid| evidence.processes.get(&pid));
    let mut problems = Vec::new();
    let held = match process {
        Some(process) if process.is_looked_at => {
            let (ours, others): (Vec<_>, Vec<_>) =
                process.nics.iter().cloned().partition(|nic| holders.of(nic) == pid);
            problems.extend(others.iter().map(|nic| left_out(nic, "another process holds it, too")));
            ours
        }
        _ => claims_of_the_process(entries, evidence)
            .into_iter()
            .filter(|nic| match claim_fault(nic, pid, holders, evidence) {
                Some(fault) => {
                    problems.push(left_out(nic, fault));
                    false
                }
                None => true,
            })
            .collect(),
    };
    let mut nics = Vec::new();
    for (entry, nic) in claims_of_operators(entries) {
        let fault = claim_fault(nic, pid, holders, evidence).filter(|_| !entry.is_own);
        if let Some(found) = located(nic, &held, evidence) {
            nics.push(found.clone());
        } else if let Some(fault) = fault {
            problems.push(left_out(nic, fault));
        } else if entry.precedence != Precedence::Orchestrator || held.is_empty() || exists(nic, evidence) {
            nics.push(nic.clone());
        }
    }
    nics.extend(held);
    let mut seen = HashSet::new();
    nics.retain(|nic| seen.insert(nic.clone()));
    let bad = nics.iter().filter(|nic| !is_device_name(&nic.tap));
    problems.extend(bad.map(|nic| format!("{:?} cannot be the name of a network device", nic.tap)));
    (nics, problems)
}

/// Those of the first source of the operator that knows some.
fn claims_of_operators<'e>(entries: &[&'e VmEntry]) -> impl Iterator<Item = (&'e VmEntry, &'e Nic)> {
    let known = entries.iter().filter(|entry| entry.precedence.is_operators() && !entry.info.nics.is_empty());
    let first = known.min_by_key(|entry| entry.precedence.nic_rank()).copied();
    first.into_iter().flat_map(|entry| entry.info.nics.iter().map(move |nic| (entry, nic)))
}

/// Claims of a trusted user's process whose descriptors cannot be read. Its API counts only where no source of the operator
/// knows NICs. A VM keeps the NICs of its ended process.
fn claims_of_the_process(entries: &[&VmEntry], evidence: Evidence) -> Vec<Nic> {
    let is_known = claims_of_operators(entries).next().is_some();
    let speaks = |entry: &&&VmEntry| {
        let has_ended = entry.precedence == Precedence::Process && entry.info.hypervisor_pid.is_none();
        let is_silent = entry.precedence.is_operators() || entry.info.nics.is_empty();
        let is_late = is_known && entry.precedence == Precedence::Vmm;
        !is_silent && !is_late && (has_ended || evidence.trust.is_trusted(entry.info.uid))
    };
    let first = entries.iter().filter(speaks).min_by_key(|entry| entry.precedence.nic_rank());
    first.map(|entry| entry.info.nics.clone()).unwrap_or_default()
}

/// The device that a name means, if the process holds it: the one here, else the only one elsewhere.
fn located<'n>(nic: &Nic, held: &'n [Nic], evidence: Evidence) -> Option<&'n Nic> {
    if let Some(found) = held.iter().find(|other| *other == nic) {
        return Some(found);
    }
    if nic.netns.is_some() || (evidence.device)(&nic.tap) != LocalDevice::Absent {
        return None;
    }
    let mut elsewhere = held.iter().filter(|other| other.tap == nic.tap);
    elsewhere.next().filter(|_| elsewhere.next().is_none())
}

/// Why a claim to a device is refused.
fn claim_fault(
    nic: &Nic,
    pid: Option<u32>,
    holders: &NicHolders,
    evidence: Evidence,
) -> Option<&'static str> {
    if holders.of(nic).is_some_and(|holder| Some(holder) != pid) {
        return Some("a process of another VM holds it");
    }
    let is_other = nic.netns.is_none() && (evidence.device)(&nic.tap) == LocalDevice::Other;
    is_other.then_some("it is no TAP")
}

fn exists(nic: &Nic, evidence: Evidence) -> bool {
    nic.netns.is_none() && (evidence.device)(&nic.tap) == LocalDevice::Tap
}

fn left_out(nic: &Nic, why: &str) -> String {
    format!("{:?} left out: {why}", nic.tap)
}
