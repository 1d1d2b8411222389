//! Merges the listings of all sources into one set of VMs. Pure, but for the saved ids.
//!
//! Entries of two sources are one VM in three cases:
//! - They have the same process.
//! - They have the same id, and not two different processes. The process must be entitled to the id.
//! - They share a NIC, and one of them has no known process.
//!
//! The first source's value of a field wins, and the next sources fill gaps. NICs are those that the process holds
//! ([`nics`](mod@nics)). Ids ([`ids`]) and NICs are unique, so that no byte counts for two VMs.

mod claims;
pub mod evidence;
pub mod fingerprints;
mod id_records;
mod ids;
mod nic_shares;
mod nics;
pub mod precedence;
mod same;
mod saved_ids;
mod twins;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use self::claims::{IdClaim, Standing};
use self::evidence::{Evidence, ProcessTable};
pub(super) use self::ids::IdAssigner;
use self::nics::{NicHolders, nics};
use self::same::Groups;
pub(super) use self::saved_ids::SavedIds;
use self::twins::IdRecord;
use super::Precedence;
use crate::model::{Excess, Hypervisor, InstanceInfo, Nic};
use crate::sources::values::uuid;

/// The listing of one source, for the merge.
#[derive(Clone, Debug)]
pub(super) struct SourceListing {
    pub(super) precedence: Precedence,
    pub(super) instances: Vec<InstanceInfo>,
    /// Have no process and no NICs. Where no other source has the id, they are not in the result.
    pub(super) ended: Vec<InstanceInfo>,
    /// Facts of the kernel about the processes that the source has read.
    pub(super) processes: ProcessTable,
    /// It is a part of the program that embeds this library, which may name any device.
    pub(super) is_own: bool,
}

impl SourceListing {
    pub(super) fn nothing(precedence: Precedence) -> Self {
        let processes = ProcessTable::new();
        Self { precedence, instances: Vec::new(), ended: Vec::new(), processes, is_own: false }
    }
}

/// A VM in the listing of one source.
#[derive(Debug)]
struct VmEntry {
    source: usize,
    precedence: Precedence,
    has_ended: bool,
    is_own: bool,
    info: InstanceInfo,
}

/// State kept from merge to merge, so that the usage of a process stays with its VM.
#[derive(Debug, Default)]
pub(super) struct Merge {
    ids: IdAssigner,
    saved: Option<SavedIds>,
    holders: NicHolders,
}

impl Merge {
    /// `retention` is how long the id of a VM that has ended is kept from other users' processes.
    pub(super) fn new(retention: Duration, boot_id: String) -> Self {
        Self { ids: IdAssigner::new(retention, boot_id), ..Self::default() }
    }

    /// Goes on with the ids of the daemon before this one, and leaves them to the next.
    pub(super) fn remember_in(&mut self, mut saved: SavedIds) {
        let left = saved.load();
        self.restore(left);
        self.saved = Some(saved);
    }

    fn restore(&mut self, left: Vec<(IdClaim, IdRecord)>) {
        self.ids.records.restore(left);
        self.ids.restore_owners(Instant::now());
    }

    /// Merges the listings, most trusted source first. Returns the VMs, and the problems and the excess of each source.
    pub(super) fn merge(
        &mut self,
        listings: Vec<SourceListing>,
        evidence: Evidence,
        now: Instant,
    ) -> (Vec<InstanceInfo>, Vec<Vec<String>>, Vec<Excess>) {
        let mut problems: Vec<Vec<String>> = listings.iter().map(|_| Vec::new()).collect();
        let entries: Vec<_> = listings.into_iter().enumerate().flat_map(entries).collect();
        let pids = entries.iter().filter_map(|entry| entry.info.hypervisor_pid);
        self.holders.update(pids, evidence);
        let (groups, left_out) = Groups::new(&entries, &self.holders, &self.ids, evidence);
        let is_there = |group: &Vec<&VmEntry>| group.iter().any(|entry| !entry.has_ended);
        let mut of_nics = Vec::new();
        let mut vms: Vec<_> = groups
            .iter()
            .filter(is_there)
            .filter_map(|group| {
                let (nics, problems) = nics(&group, &self.holders, evidence);
                let vm = one(&group, nics, evidence)?;
                of_nics.extend(problems.into_iter().map(|problem| (vm.source, vm.info.id.clone(), problem)));
                Some(vm)
            })
            .collect();
        let of_ids = self.ids.give(&mut vms, evidence, now);
        if self.ids.records.take_changed()
            && let Some(saved) = &mut self.saved
        {
            saved.save(&self.ids.records);
        }
        of_nics.extend(share_nics(&mut vms));
        let mut overuse: Vec<Excess> = problems.iter().map(|_| Excess::default()).collect();
        for (source, uid, count) in nic_shares::limit(&mut vms) {
            overuse[source].add(uid, "nics", count);
        }
        let of_nics = of_nics.into_iter().map(|(source, id, problem)| (source, format!("{id:?}: {problem}")));
        for (source, problem) in left_out.into_iter().chain(of_ids).chain(of_nics) {
            problems[source].push(problem);
        }
        (vms.into_iter().map(|vm| vm.info).collect(), problems, overuse)
    }
}

fn entries((source, told): (usize, SourceListing)) -> impl Iterator<Item = VmEntry> {
    let SourceListing { precedence, instances, ended, is_own, .. } = told;
    let entry = move |has_ended| {
        move |mut info: InstanceInfo| {
            canonical(&mut info);
            VmEntry { source, precedence, has_ended, is_own, info }
        }
    };
    instances.into_iter().map(entry(false)).chain(ended.into_iter().map(entry(true)))
}

/// Two spellings of a UUID are one VM.
fn canonical(vm: &mut InstanceInfo) {
    if !vm.id.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return;
    }
    let id = uuid::canonical(&vm.id);
    if vm.name == vm.id {
        vm.name.clone_from(&id);
    }
    vm.id = id;
}

/// A merged VM, the first source that lists it, and who claims its id.
#[derive(Debug)]
pub(super) struct MergedVm {
    info: InstanceInfo,
    source: usize,
    standing: Standing,
}

impl MergedVm {
    fn claim(&self) -> IdClaim {
        IdClaim { id: self.info.id.clone(), standing: self.standing }
    }
}

/// Merges the entries of one VM: the first value of each field wins.
fn one(entries: &[&VmEntry], nics: Vec<Nic>, evidence: Evidence) -> Option<MergedVm> {
    let (first, others) = entries.split_first()?;
    let mut info = InstanceInfo { nics, ..first.info.clone() };
    for entry in others {
        fill(&mut info, &entry.info);
    }
    // The kernel's word on the user comes first.
    let process = info.hypervisor_pid.and_then(|pid| evidence.processes.get(&pid));
    info.uid = process.and_then(|process| process.uid).or(info.uid);
    let names = entries.iter().find(|entry| !entry.info.id.is_empty());
    let standing = match names {
        Some(entry) if entry.precedence.is_operators() => Standing::Operator,
        _ if evidence.trust.is_trusted(info.uid) => Standing::Trusted,
        _ => Standing::User(info.uid),
    };
    name(&mut info);
    if standing.is_user() {
        cut_names(&mut info);
    }
    Some(MergedVm { info, source: first.source, standing })
}

/// A device that two VMs name is the first one's. The id and the text of each problem, with its source.
fn share_nics(vms: &mut [MergedVm]) -> Vec<(usize, String, String)> {
    let mut first: HashMap<Nic, usize> = HashMap::new();
    let mut problems = Vec::new();
    for at in 0..vms.len() {
        let MergedVm { info, source, .. } = &mut vms[at];
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for nic in std::mem::take(&mut info.nics) {
            match *first.entry(nic.clone()).or_insert(at) {
                holder if holder == at => ours.push(nic),
                holder => others.push((nic, holder)),
            }
        }
        info.nics = ours;
        let (source, id) = (*source, info.id.clone());
        for (nic, holder) in others {
            let problem = format!("{:?} left out: it is of {:?} already", nic.tap, vms[holder].info.id);
            problems.push((source, id.clone(), problem));
        }
    }
    problems
}

fn fill(vm: &mut InstanceInfo, other: &InstanceInfo) {
    if vm.id.is_empty() {
        vm.id.clone_from(&other.id);
    }
    if vm.name.is_empty() {
        vm.name.clone_from(&other.name);
    }
    if vm.hypervisor == Hypervisor::Other {
        vm.hypervisor = other.hypervisor;
    }
    vm.hypervisor_pid = vm.hypervisor_pid.or(other.hypervisor_pid);
    vm.uid = vm.uid.or(other.uid);
    nic_shares::join(&mut vm.unmonitored, &other.unmonitored);
    vm.has_more_nics |= other.has_more_nics;
    // Who knows how many there are now knows more than how many there may be.
    if vm.allocated_vcpus.is_none() && (vm.max_vcpus.is_none() || other.allocated_vcpus.is_some()) {
        (vm.allocated_vcpus, vm.max_vcpus) = (other.allocated_vcpus, other.max_vcpus);
    }
    vm.allocated_memory_bytes = vm.allocated_memory_bytes.or(other.allocated_memory_bytes);
    vm.actual_memory_bytes = vm.actual_memory_bytes.or(other.actual_memory_bytes);
    vm.state = vm.state.or(other.state);
    vm.project = vm.project.take().or_else(|| other.project.clone());
    vm.namespace = vm.namespace.take().or_else(|| other.namespace.clone());
    vm.pod_uid = vm.pod_uid.take().or_else(|| other.pod_uid.clone());
    for (tag, value) in &other.tags {
        vm.tags.entry(tag.clone()).or_insert_with(|| value.clone());
    }
    let (limits, others) = (&mut vm.network_limits, other.network_limits);
    limits.rx_bytes_per_second = limits.rx_bytes_per_second.or(others.rx_bytes_per_second);
    limits.tx_bytes_per_second = limits.tx_bytes_per_second.or(others.tx_bytes_per_second);
    vm.restart_attempts = vm.restart_attempts.or(other.restart_attempts);
}

/// Each name is a label of dozens of series. In bytes.
const STRANGERS_NAME: usize = 128;

fn cut_names(vm: &mut InstanceInfo) {
    let names = [&mut vm.id, &mut vm.name].into_iter().chain(&mut vm.project).chain(&mut vm.namespace);
    for name in names.chain(vm.unmonitored.iter_mut().map(|nic| &mut nic.name)) {
        name.truncate(name.floor_char_boundary(STRANGERS_NAME));
    }
}

/// Names a VM that no source has named.
fn name(vm: &mut InstanceInfo) {
    if vm.id.is_empty() && vm.name.is_empty() {
        let pid = vm.hypervisor_pid.unwrap_or_default();
        vm.id = format!("{}-{pid}", vm.hypervisor);
    } else if vm.id.is_empty() {
        vm.id.clone_from(&vm.name);
    }
    if vm.name.is_empty() {
        vm.name.clone_from(&vm.id);
    }
}

#[cfg(test)]
mod tests;
