//! Finds the processes that continue a VM after its process has closed devices or ended.
//!
//! A descendant of the VM's process is the same VM. Any other process is a new VM with these devices only. Until it is
//! found, the VM continues without a process, so that every byte counts.
//!
//! Orchestrators keep descriptors of the TAPs of many VMs. So a holder of a trusted user is no VM, and a hypervisor comes
//! before all other holders.

use std::collections::{HashMap, HashSet};
use std::iter;

use super::inspect::ProcessVm;
use super::inspections::HolderSearch;
use super::looks::TimePool;
use super::program_file::ProgramFile;
use super::scan::Scan;
use super::{ProcScan, ProcessEntry, ProcessKind};
use crate::model::{InstanceInfo, Nic};
use crate::sources::merge::evidence::LocalDevice;

/// How far back the processes are followed from which one has come.
const MAX_GENERATIONS: usize = 8;

/// Processes that have come from a VM's and are looked at for its devices.
const MAX_HEIRS: usize = 64;

/// VMs that wait for their holder to be found.
const MAX_ORPHANS: usize = 16;

/// Processes that are looked at in one call for the devices of those.
const SEARCHED: usize = 256;

/// A VM whose process has ended while another process holds its TAP.
#[derive(Debug)]
pub struct Orphan {
    pub info: InstanceInfo,
    /// The process that was looked at last.
    cursor: u32,
    /// Whether some before it could not be looked at.
    is_partial: bool,
}

impl ProcScan {
    /// The VM from whose process this one has come.
    pub fn ancestor(&self, pid: u32) -> Option<&ProcessVm> {
        let parent = |pid: &u32| self.processes.get(pid)?.parent;
        iter::successors(parent(&pid), parent).take(MAX_GENERATIONS).find_map(|ancestor| self.vm(ancestor))
    }

    /// Gives a VM back the devices that it has let go of and that a process holds which has come from it.
    ///
    /// Where a process cannot be read for now, the VM keeps them until its next look.
    pub fn take_back(&mut self, pid: u32, lost: &[Nic], scan: &Scan) {
        let Some(vm) = self.vm(pid) else { return };
        let known: Vec<u32> = vm.heirs.iter().map(|(heir, _)| *heir).collect();
        let mut wanted: HashSet<Nic> = lost.iter().cloned().collect();
        wanted.extend(vm.heirs.iter().flat_map(|(_, share)| share.nics().cloned()));
        self.look_at_heirs(pid, &known, &wanted, scan);
        if self.missing(pid, lost).is_empty() {
            return;
        }
        let mut others = self.descendants(pid);
        others.retain(|child| !known.contains(child));
        let is_unknown = self.look_at_heirs(pid, &others, &wanted, scan);
        let mut missing = self.missing(pid, lost);
        missing.retain(|nic| is_unknown && !self.is_held_by_another(pid, nic));
        if let Some(vm) = self.vm_mut(pid) {
            vm.info.nics.extend(missing);
        }
    }

    /// Whether one of the processes may hold some of these NICs and could not be looked at.
    fn look_at_heirs(&mut self, pid: u32, heirs: &[u32], wanted: &HashSet<Nic>, scan: &Scan) -> bool {
        let (gone, heirs): (Vec<u32>, Vec<u32>) = heirs
            .iter()
            .copied()
            .partition(|heir| !self.processes.contains_key(heir) || self.runs_a_vm(*heir));
        let HolderSearch { found, unknown } = self.holders(&heirs, TimePool::Vms, scan);
        let mut found: HashMap<u32, ProcessVm> = found.into_iter().map(|vm| (vm.pid, vm)).collect();
        let Some(vm) = self.vm_mut(pid) else { return !unknown.is_empty() };
        for heir in heirs.into_iter().filter(|heir| !unknown.contains(heir)).chain(gone) {
            let is_known = vm.heirs.iter().any(|(known, _)| *known == heir);
            let holder = found.remove(&heir);
            let holds = |holder: &ProcessVm| holder.info.nics.iter().any(|nic| wanted.contains(nic));
            if is_known || holder.as_ref().is_some_and(holds) {
                vm.set_heir(heir, holder.map(|holder| holder.share(|nic| wanted.contains(nic))));
            }
        }
        !unknown.is_empty()
    }

    fn missing(&self, pid: u32, lost: &[Nic]) -> Vec<Nic> {
        let Some(vm) = self.vm(pid) else { return Vec::new() };
        lost.iter().filter(|nic| !vm.info.nics.contains(nic)).cloned().collect()
    }

    /// Whether it is a VM of its own, which has nothing of the one from which it has come.
    fn runs_a_vm(&self, pid: u32) -> bool {
        self.vm(pid).is_some_and(|vm| vm.is_found_by_kvm)
    }

    /// A process that runs a VM of its own keeps its devices.
    pub fn leave_ancestors(&mut self, heir: u32) {
        for vm in self.processes.values_mut().filter_map(ProcessEntry::vm_mut) {
            if vm.heirs.iter().any(|(known, _)| *known == heir) {
                vm.set_heir(heir, None);
            }
        }
    }

    /// Finds who goes on with the devices of a VM whose process has ended, or runs another program.
    pub fn pass_on(&mut self, ended: &ProcessVm, scan: &Scan) {
        let (pid, nics) = (ended.pid, &ended.info.nics);
        if nics.is_empty() {
            return;
        }
        let heirs = self.holders(&self.descendants(pid), TimePool::Vms, scan);
        if let Some(holder) = heirs.found.into_iter().find(|vm| vm.holds_any(nics)) {
            self.set_vm(holder.continuing(ended));
            return;
        }
        // The process itself, where it runs another program. One with its pid that is a VM is found already.
        let is_vm = self.vm(pid).is_some();
        if let Some(vm) = self.program(pid, scan).filter(|vm| !is_vm && vm.holds_any(nics)) {
            self.set_vm(vm);
            return;
        }
        // A process of root that still holds the TAP keeps it for the next VM.
        let is_stranger = !self.trust.is_trusted(ended.info.uid);
        let is_held = |nic: &Nic| nic.netns.is_none() && LocalDevice::has_carrier(&self.host, &nic.tap);
        if is_stranger
            && self.orphans.len() < MAX_ORPHANS
            && nics.iter().any(is_held)
            && !self.is_held_by_a_vm(nics)
        {
            let info = InstanceInfo { hypervisor_pid: None, ..ended.info.clone() };
            self.orphans.push(Orphan { info, cursor: 0, is_partial: false });
        }
    }

    /// Looks at some more processes for the devices of orphans.
    pub fn search(&mut self, scan: &Scan) {
        let mut pids: Vec<u32> = self.processes.keys().copied().collect();
        pids.sort_unstable();
        let mut left = SEARCHED;
        for mut orphan in std::mem::take(&mut self.orphans) {
            let nics = orphan.info.nics.clone();
            let is_held = |nic: &Nic| LocalDevice::has_carrier(&self.host, &nic.tap);
            if self.is_held_by_a_vm(&nics) || !nics.iter().any(is_held) {
                continue;
            }
            let from = pids.partition_point(|pid| *pid <= orphan.cursor);
            let next: Vec<u32> = pids[from..].iter().copied().take(left).collect();
            left -= next.len();
            let trust = self.trust.clone();
            // The usual scan finds a hypervisor.
            let is_hypervisor = |vm: &ProcessVm| vm.program.as_ref().is_some_and(ProgramFile::is_hypervisor);
            let holds = |vm: &ProcessVm| {
                let is_stranger = !trust.is_trusted(vm.info.uid) && !is_hypervisor(vm);
                is_stranger && vm.holds_any(&nics)
            };
            let last = next.last().copied();
            let holders = self.holders(&next, TimePool::Vms, scan);
            orphan.is_partial |= !holders.unknown.is_empty();
            let holder = holders.found.into_iter().find(holds);
            match (holder, last) {
                (Some(holder), _) => self.adopt(holder, nics),
                (None, Some(last)) => {
                    orphan.cursor = last;
                    self.orphans.push(orphan);
                }
                (None, None) if orphan.is_partial => {
                    (orphan.cursor, orphan.is_partial) = (0, false);
                    self.orphans.push(orphan);
                }
                // This daemon may not see the holder.
                (None, None) if left > 0 => {}
                (None, None) => self.orphans.push(orphan),
            }
        }
    }

    /// A device that a hypervisor holds leaves the processes that had inherited it.
    pub fn give_way(&mut self) {
        if self.vms().all(|vm| vm.inherited.is_none()) {
            return;
        }
        let others = self.vms().filter(|vm| vm.is_listed && vm.inherited.is_none());
        let held: HashSet<Nic> = others.flat_map(|vm| vm.info.nics.iter().cloned()).collect();
        for entry in self.processes.values_mut() {
            let ProcessKind::Vm(vm) = &mut entry.kind else { continue };
            let Some(inherited) = &mut vm.inherited else { continue };
            inherited.retain(|nic| !held.contains(nic));
            vm.info.nics.retain(|nic| !held.contains(nic));
            if vm.info.nics.is_empty() {
                entry.kind = ProcessKind::NoVm;
            }
        }
    }

    /// The process goes on with these NICs, and with those of others that it went on with before.
    fn adopt(&mut self, holder: ProcessVm, mut nics: Vec<Nic>) {
        let inherited = self.vm(holder.pid).and_then(|vm| vm.inherited.as_ref());
        nics.extend(inherited.into_iter().flatten().cloned());
        self.set_vm(holder.heir_of(nics));
    }

    fn set_vm(&mut self, vm: ProcessVm) {
        if let Some(entry) = self.processes.get_mut(&vm.pid) {
            entry.kind = ProcessKind::Vm(Box::new(vm));
        }
    }

    pub fn is_held_by_a_vm(&self, nics: &[Nic]) -> bool {
        self.vms().any(|vm| vm.holds_any(nics))
    }

    pub fn is_held_by_another(&self, pid: u32, nic: &Nic) -> bool {
        self.vms().any(|vm| vm.pid != pid && vm.info.nics.contains(nic))
    }

    /// The processes that have come from this one, as far as their beginnings were seen.
    pub fn descendants(&self, pid: u32) -> Vec<u32> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for (child, entry) in &self.processes {
            if let Some(parent) = entry.parent {
                children.entry(parent).or_default().push(*child);
            }
        }
        let (mut found, mut next) = (Vec::new(), vec![pid]);
        for _ in 0..MAX_GENERATIONS {
            next = next.iter().filter_map(|parent| children.remove(parent)).flatten().collect();
            next.sort_unstable();
            found.extend(&next);
        }
        found.truncate(MAX_HEIRS);
        found
    }
}
