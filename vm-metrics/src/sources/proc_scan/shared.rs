//! Resolves NICs of several VMs: a VM that has closed one loses it.
//!
//! A new VM opens the TAP that another VM has closed. So the scan asks the kernel about this one descriptor, however many
//! the process has, and without regard to the time budget of its user.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::inspect::ProcessVm;
use super::looks::TimePool;
use super::observer::Observer;
use super::queries::{ProcessQuery, ProcessReply};
use super::taps::DeviceDescriptor;
use super::{Findings, ProcScan, ProcessEntry, ProcessKind};
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
    pub(super) fn look_at_shared_nics(&mut self, observer: &Arc<Observer>, findings: &mut Findings) {
        let shared = self.shared_nics();
        if shared.is_empty() {
            return;
        }
        let losers = self.take_from_losers(&shared, observer);
        self.look_at_losers(losers, observer, findings);
    }

    /// Asks all holders. Returns the VMs that have lost something.
    fn take_from_losers(&mut self, shared: &HashSet<Nic>, observer: &Arc<Observer>) -> HashSet<u32> {
        let holders = self.holders_of(shared);
        let question = |Holder { pid, uid, known, .. }: &Holder| {
            (*pid, *uid, ProcessQuery::Held { uid: *uid, known: known.clone() })
        };
        let asked = holders.iter().map(question).collect();
        let still: Vec<Option<Vec<DeviceDescriptor>>> =
            self.ask(asked, TimePool::Vms, observer).into_iter().map(|answer| still(answer?.0)).collect();
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
            if let Some(ProcessEntry { kind: ProcessKind::Vm(known), .. }) = self.processes.get_mut(&vm) {
                // Devices without a known holder leave it, too.
                known.lose(vm, pid, &lost);
            }
        }
        losers
    }

    /// They may hold the device, or another one, under other descriptors.
    fn look_at_losers(&mut self, losers: HashSet<u32>, observer: &Arc<Observer>, findings: &mut Findings) {
        let mut asked = Vec::new();
        for pid in losers {
            let Some(vm) =
                self.processes.get(&pid).and_then(ProcessEntry::vm).filter(|vm| vm.heirs.is_empty())
            else {
                continue;
            };
            let uid = vm.info.uid;
            if self.trust.is_trusted(uid) || self.looks.is_room(uid) {
                asked.push((pid, uid, ProcessQuery::of(vm)));
            }
        }
        let pids: Vec<u32> = asked.iter().map(|(pid, ..)| *pid).collect();
        let answers = self.ask(asked, TimePool::Vms, observer);
        for (pid, answer) in pids.into_iter().zip(answers) {
            let Some(ProcessEntry { kind: ProcessKind::Vm(vm), .. }) = self.processes.get_mut(&pid) else {
                continue;
            };
            let Some((ProcessReply::Vm(_, now), _)) = answer else { continue };
            match now {
                Ok(now) => vm.take_now(pid, observer, now),
                Err(ReadError::Failed(error)) => findings.problems.push(error),
                Err(ReadError::Gone) => {}
            }
        }
    }

    /// All processes of VMs with one of these NICs.
    fn holders_of(&self, shared: &HashSet<Nic>) -> Vec<Holder> {
        let is_shared = |nic: &Nic| shared.contains(nic);
        let vms = self.processes.iter().filter_map(|(pid, entry)| Some((*pid, entry.vm()?)));
        let vms = vms.filter(|(_, vm)| vm.info.nics.iter().any(is_shared));
        let of_vm = |(vm, known): (u32, &ProcessVm)| {
            let uid = known.info.uid;
            let holders = known.holders(vm, is_shared).into_iter();
            holders.map(move |(pid, known)| Holder { vm, pid, uid, known }).collect::<Vec<_>>()
        };
        vms.flat_map(of_vm).collect()
    }

    fn shared_nics(&self) -> HashSet<Nic> {
        let mut holders: HashMap<&Nic, u32> = HashMap::new();
        for nic in self.processes.values().filter_map(ProcessEntry::vm).flat_map(|vm| &vm.info.nics) {
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
