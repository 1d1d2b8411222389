//! Adds the TAPs of child processes to VMMs with device processes, such as crosvm.

use std::mem;

use super::super::inspect::ProcessVm;
use super::super::looks::TimePool;
use super::super::scan::Scan;
use super::super::{ProcScan, ProcessKind};
use crate::model::Hypervisor;

impl ProcScan {
    /// Gives a VM of KVM the devices that processes of the same program hold which have come from its own.
    ///
    /// A child that holds KVM descriptors may be a VM itself. VMs keep their own devices.
    pub fn take_from_children(&mut self, scan: &Scan) {
        let unfinished = mem::take(&mut self.unfinished_parents);
        let is_due = |pid, first| {
            scan.full_scan || scan.devices_changed || first == scan.now || unfinished.contains(pid)
        };
        let vms: Vec<u32> = self
            .processes
            .iter()
            .filter(|(pid, entry)| is_due(*pid, entry.first) && entry.vm().is_some_and(is_program))
            .map(|(pid, _)| *pid)
            .collect();
        for pid in vms {
            self.take_from(pid, scan);
        }
    }

    fn take_from(&mut self, pid: u32, scan: &Scan) {
        let is_no_vm = |child: &u32| {
            let entry = self.processes.get(child);
            entry.is_some_and(|entry| matches!(entry.kind, ProcessKind::NoVm) && entry.kvm.is_none_of_kvm())
        };
        let children: Vec<u32> = self.descendants(pid).into_iter().filter(is_no_vm).collect();
        let holders = self.holders(&children, TimePool::Kvm, scan);
        if !holders.unknown.is_empty() {
            self.unfinished_parents.insert(pid);
        }
        for holder in holders.found {
            if self.vm(pid).is_some_and(|vm| vm.program == holder.program) {
                let child = holder.pid;
                let share = holder.share(|nic| !self.is_held_by_another(pid, nic));
                if let Some(vm) = self.vm_mut(pid) {
                    vm.set_heir(child, Some(share));
                }
            }
        }
    }
}

fn is_program(vm: &ProcessVm) -> bool {
    vm.is_listed && matches!(vm.info.hypervisor, Hypervisor::Program(_))
}
