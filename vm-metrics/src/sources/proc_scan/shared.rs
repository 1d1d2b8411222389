//! Resolves NICs of several VMs: a VM that has closed one loses it.
//!
//! A new VM opens the TAP that another VM has closed. So the scan asks the kernel about this one descriptor, however many
//! the process has, and without regard to the time budget of its user.

use std::collections::{HashMap, HashSet};

use super::ProcScan;
use super::inspect::ProcessVm;
use super::looks::TimePool;
use super::queries::{ProcessQuery, ProcessReply};
use super::scan::Scan;
use super::taps::DeviceDescriptor;
use crate::model::Nic;
use crate::sources::process::ReadError;

/// A process of a VM, and its known devices.
struct Holder {
    vm: u32,
    pid: u32,
    uid: Option<u32>,
    known: Vec<DeviceDescriptor>,
}

impl ProcScan {
    /// Of VMs with the same NIC, those may have lost it that had it before.
    pub(super) fn look_at_shared_nics(&mut self, scan: &mut Scan) {
        let shared = self.shared_nics();
        if shared.is_empty() {
            return;
        }
        let losers = self.take_from_losers(&shared, scan);
        self.look_at_losers(losers, scan);
    }

    /// Asks all holders. Returns the VMs that have lost something.
    fn take_from_losers(&mut self, shared: &HashSet<Nic>, scan: &Scan) -> HashSet<u32> {
        let holders = self.holders_of(shared);
        let question = |Holder { pid, uid, known, .. }: &Holder| {
            (*pid, *uid, ProcessQuery::Held { uid: *uid, known: known.clone() })
        };
        let asked = holders.iter().map(question).collect();
        let answers = self.ask(asked, TimePool::Vms, scan);
        let still: Vec<_> = answers.into_iter().map(|answer| still(answer.reply?)).collect();
        let all_held = still.iter().flatten().flatten();
        let confirmed: HashSet<Nic> = all_held.filter_map(|(_, held)| held.nic().cloned()).collect();
        let mut losers = HashSet::new();
        for (Holder { vm, pid, uid, known }, still) in holders.into_iter().zip(still) {
            let is_trusted = self.trust.is_trusted(uid);
            let is_lost = |known: &DeviceDescriptor| match &still {
                Some(still) => !still.contains(known),
                // It does not answer. A process that answers holds the device.
                None => !is_trusted && known.1.nic().is_some_and(|nic| confirmed.contains(nic)),
            };
            let lost: Vec<DeviceDescriptor> = known.into_iter().filter(is_lost).collect();
            losers.extend((!lost.is_empty()).then_some(vm));
            if let Some(vm) = self.vm_mut(vm) {
                // Devices without a known holder leave it, too.
                vm.lose(pid, &lost);
            }
        }
        losers
    }

    /// They may hold the device, or another one, under other descriptors.
    fn look_at_losers(&mut self, losers: HashSet<u32>, scan: &mut Scan) {
        let has_room = |uid| self.trust.is_trusted(uid) || self.looks.is_room(uid);
        let losers = losers.into_iter().filter_map(|pid| self.vm(pid));
        let asked = losers
            .filter(|vm| vm.heirs.is_empty() && has_room(vm.info.uid))
            .map(|vm| (vm.pid, vm.info.uid, ProcessQuery::of(vm)))
            .collect();
        for answer in self.ask(asked, TimePool::Vms, scan) {
            let Some(vm) = self.vm_mut(answer.pid) else { continue };
            match answer.reply {
                Some(ProcessReply::Vm(_, Ok(now))) => vm.take_now(now),
                Some(ProcessReply::Vm(_, Err(ReadError::Failed(error)))) => scan.problems.push(error),
                _ => {}
            }
        }
    }

    /// All processes of VMs with one of these NICs.
    fn holders_of(&self, shared: &HashSet<Nic>) -> Vec<Holder> {
        let is_shared = |nic: &Nic| shared.contains(nic);
        let of_vm = |vm: &ProcessVm| {
            let (vm, uid, holders) = (vm.pid, vm.info.uid, vm.holders(is_shared));
            holders.into_iter().map(move |(pid, known)| Holder { vm, pid, uid, known })
        };
        self.vms().filter(|vm| vm.info.nics.iter().any(is_shared)).flat_map(of_vm).collect()
    }

    /// A process that is part of a VM shares nothing with it: a late answer of one takes nothing from the other.
    fn shared_nics(&self) -> HashSet<Nic> {
        let mut holders: HashMap<&Nic, u32> = HashMap::new();
        let vms = self.vms().filter(|vm| !vm.is_listed || !self.is_part_of_another(vm));
        for nic in vms.flat_map(|vm| &vm.info.nics) {
            *holders.entry(nic).or_default() += 1;
        }
        holders.into_iter().filter(|(_, count)| *count > 1).map(|(nic, _)| nic.clone()).collect()
    }
}

fn still(answer: ProcessReply) -> Option<Vec<DeviceDescriptor>> {
    match answer {
        ProcessReply::Held(still) => Some(still),
        _ => None,
    }
}
