//! What several sources know, as one set of VMs. Pure.

mod same;
mod unique;

use self::same::{Entry, Groups, nics};
pub(super) use self::unique::GivenIds;
use self::unique::{check_nics, make_ids_unique};
use super::Tier;
use crate::model::{Hypervisor, InstanceInfo};

/// One set of what each source lists, the most trusted source first, and what is wrong with each source's
/// list.
///
/// VMs of two sources are the same if they have the same process; or the same id and not two different
/// processes; or a NIC in common, and one of them no process that is known. The first source's word counts; what it does
/// not know is taken from the next. NICs have an order of their own: see [`Tier`]. In the result, no
/// id is there twice: the VM that comes first keeps it, others have their pid added. Nor is a NIC, so that no byte is
/// counted for two VMs: the one that comes first keeps it.
pub fn merge_listings(listings: Vec<(Tier, Vec<InstanceInfo>)>) -> (Vec<InstanceInfo>, Vec<Vec<String>>) {
    let told = |(tier, instances)| Told { instances, ..Told::nothing(tier) };
    merge_again(listings.into_iter().map(told).collect(), &mut GivenIds::default())
}

/// What one source lists.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) tier: Tier,
    pub(super) instances: Vec<InstanceInfo>,
    /// Have no process and no NICs. Where no other source has the id, they are not in the result.
    pub(super) ended: Vec<InstanceInfo>,
}

impl Told {
    pub(super) fn nothing(tier: Tier) -> Self {
        Self { tier, instances: Vec::new(), ended: Vec::new() }
    }
}

/// The same, but a process keeps the id it was given before, whoever else with its id comes or goes: what it uses must not
/// seem to be another VM's. Unless a more trusted source gives it the id.
pub(super) fn merge_again(
    listings: Vec<Told>,
    given: &mut GivenIds,
) -> (Vec<InstanceInfo>, Vec<Vec<String>>) {
    let mut problems: Vec<Vec<String>> = listings.iter().map(|_| Vec::new()).collect();
    let entries: Vec<_> = listings.into_iter().enumerate().flat_map(entries).collect();
    let (groups, left_out) = Groups::new(&entries);
    let is_there = |group: &Vec<&Entry>| group.iter().any(|entry| !entry.has_ended);
    let mut vms: Vec<_> = groups.iter().filter(is_there).filter_map(|group| one(&group)).collect();
    let of_ids = make_ids_unique(&mut vms, given);
    let of_nics = check_nics(&mut vms);
    for (source, problem) in left_out.into_iter().chain(of_ids).chain(of_nics) {
        problems[source].push(problem);
    }
    (vms.into_iter().map(|vm| vm.info).collect(), problems)
}

fn entries((source, Told { tier, instances, ended, .. }): (usize, Told)) -> impl Iterator<Item = Entry> {
    let entry = move |has_ended| move |info| Entry { source, tier, has_ended, info };
    instances.into_iter().map(entry(false)).chain(ended.into_iter().map(entry(true)))
}

/// What is known of one VM, and the source that has it first.
#[derive(Debug)]
struct Vm {
    info: InstanceInfo,
    source: usize,
}

/// The first word counts.
fn one(entries: &[&Entry]) -> Option<Vm> {
    let (first, others) = entries.split_first()?;
    let mut info = InstanceInfo { nics: nics(entries), ..first.info.clone() };
    for entry in others {
        fill(&mut info, &entry.info);
    }
    name(&mut info);
    Some(Vm { info, source: first.source })
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
    if vm.uncounted.is_empty() {
        vm.uncounted.clone_from(&other.uncounted);
    }
    vm.allocated_vcpus = vm.allocated_vcpus.or(other.allocated_vcpus);
    vm.allocated_memory_bytes = vm.allocated_memory_bytes.or(other.allocated_memory_bytes);
    vm.actual_memory_bytes = vm.actual_memory_bytes.or(other.actual_memory_bytes);
    vm.state = vm.state.or(other.state);
    vm.project = vm.project.take().or_else(|| other.project.clone());
}

/// One that nobody has named.
fn name(vm: &mut InstanceInfo) {
    if vm.id.is_empty() {
        let pid = vm.hypervisor_pid.unwrap_or_default();
        vm.id = format!("{}-{pid}", vm.hypervisor);
    }
    if vm.name.is_empty() {
        vm.name.clone_from(&vm.id);
    }
}

#[cfg(test)]
mod tests;
