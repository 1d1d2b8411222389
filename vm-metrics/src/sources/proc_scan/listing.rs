//! Makes the listing of a scan: VMs, evidence and problems within bounds.

use std::collections::HashMap;

use super::inspect::ProcessVm;
use super::{ProcScan, ProcessKind};
use crate::model::{Excess, InstanceInfo, fair_share};
use crate::sources::merge::evidence::ProcessEvidence;
use crate::sources::{Listing, SourceError};

/// Without the right to read any process, there would be one problem for each.
pub const MAX_PROBLEMS: usize = 32;

/// VMs of all users together who are not trusted. Each costs a tick about a tenth of a millisecond.
const MAX_VMS: u64 = 1024;

impl ProcScan {
    pub fn listing(&mut self, mut problems: Vec<SourceError>) -> Listing {
        let mut found: Vec<&ProcessVm> = Vec::new();
        let mut suspects = Vec::new();
        for entry in self.processes.values() {
            match &entry.kind {
                ProcessKind::NoVm => {}
                ProcessKind::Vm(vm) => {
                    let is_trusted = self.trust.is_trusted(vm.info.uid);
                    if is_trusted { &mut problems } else { &mut suspects }.extend(vm.problems());
                    found.push(vm);
                }
                ProcessKind::Unreadable(error) => suspects.push(error.clone()),
            }
        }
        problems.sort_by_cached_key(ToString::to_string);
        suspects.sort_by_cached_key(ToString::to_string);
        problems.extend(suspects);
        found.sort_unstable_by_key(|vm| (vm.start_ticks, vm.pid));
        let processes = found.iter().map(|vm| (vm.pid, evidence(vm))).collect();
        let mut overuse = std::mem::take(&mut self.overuse);
        found.retain(|vm| vm.is_listed && !self.is_part_of_another(vm));
        let sockets = found.iter().filter_map(|vm| vm.api_socket()).collect();
        let instances = found.into_iter().map(|vm| vm.info.clone());
        let mut instances: Vec<_> =
            instances.chain(self.orphans.iter().map(|orphan| orphan.info.clone())).collect();
        self.limit(&mut instances, &mut overuse);
        limit_problems(&mut problems);
        Listing { instances, problems, sockets, processes, overuse, ..Listing::default() }
    }

    /// It has come from another VM and holds a device of that: it is the same VM.
    pub fn is_part_of_another(&self, vm: &ProcessVm) -> bool {
        !vm.is_found_by_kvm
            && self
                .ancestor(vm.pid)
                .is_some_and(|ancestor| ancestor.is_listed && vm.holds_any(&ancestor.info.nics))
    }

    /// The oldest VMs of a user stay.
    fn limit(&self, vms: &mut Vec<InstanceInfo>, overuse: &mut Excess) {
        let mut demands: HashMap<Option<u32>, u64> = HashMap::new();
        for vm in vms.iter().filter(|vm| !self.trust.is_trusted(vm.uid)) {
            *demands.entry(vm.uid).or_default() += 1;
        }
        // Of more users than there is room for, those with the oldest VMs have one.
        let share = fair_share(MAX_VMS, demands.into_values()).max(1);
        let mut counts: HashMap<Option<u32>, u64> = HashMap::new();
        let mut room = MAX_VMS;
        vms.retain(|vm| {
            let count = counts.entry(vm.uid).or_default();
            *count += 1;
            let is_trusted = self.trust.is_trusted(vm.uid);
            let stays = is_trusted || *count <= share && room > 0;
            room -= u64::from(stays && !is_trusted);
            overuse.add(vm.uid, "vms", u64::from(!stays));
            stays
        });
    }
}

fn evidence(vm: &ProcessVm) -> ProcessEvidence {
    ProcessEvidence {
        start_ticks: vm.start_ticks,
        uid: vm.info.uid,
        is_looked_at: vm.is_looked_at,
        nics: vm.info.nics.clone(),
        is_holder: vm.is_holder,
        fingerprints: vm.fingerprints,
        came_from: vm.came_from,
    }
}

fn limit_problems(problems: &mut Vec<SourceError>) {
    if let Some(count) = problems.len().checked_sub(MAX_PROBLEMS).filter(|count| *count > 0) {
        problems.truncate(MAX_PROBLEMS);
        problems.push(SourceError::More { count });
    }
}
