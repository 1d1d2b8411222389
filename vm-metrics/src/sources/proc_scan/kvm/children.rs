//! The TAPs of VMMs whose devices are processes of their own, as crosvm's are in its sandbox.

use std::mem;
use std::sync::Arc;

use super::super::inspect::Vm;
use super::super::looks::Pot;
use super::super::observer::Observer;
use super::super::{Moment, ProcScan, Seen, What};
use crate::model::Hypervisor;

impl ProcScan {
    /// Gives a VM of KVM the devices that processes of the same program hold which have come from its own.
    ///
    /// A process that has to do with KVM may be a VM itself. What a VM holds stays with that.
    pub fn take_from_children(&mut self, moment: &Moment, observer: &Arc<Observer>) {
        let unfinished = mem::take(&mut self.unfinished_parents);
        let is_due = |pid, first| {
            moment.full_scan || moment.devices_changed || first == moment.now || unfinished.contains(pid)
        };
        let vms: Vec<u32> = self
            .seen
            .iter()
            .filter(|(pid, seen)| is_due(*pid, seen.first) && seen.vm().is_some_and(is_program))
            .map(|(pid, _)| *pid)
            .collect();
        for pid in vms {
            self.take_from(pid, observer);
        }
    }

    fn take_from(&mut self, pid: u32, observer: &Arc<Observer>) {
        let is_no_vm = |child: &u32| {
            let seen = self.seen.get(child);
            seen.is_some_and(|seen| matches!(seen.what, What::NoVm) && seen.kvm.is_none_of_kvm())
        };
        let children: Vec<u32> = self.descendants(pid).into_iter().filter(is_no_vm).collect();
        let holders = self.holders(&children, Pot::Kvm, observer);
        if !holders.unknown.is_empty() {
            self.unfinished_parents.insert(pid);
        }
        for (child, holder) in holders.found {
            let is_same_program =
                self.seen.get(&pid).and_then(Seen::vm).is_some_and(|vm| vm.program == holder.program);
            if is_same_program {
                let share = holder.share(|nic| !self.is_held_by_another(pid, nic));
                let Some(What::Vm(vm)) = self.seen.get_mut(&pid).map(|seen| &mut seen.what) else { return };
                vm.set_heir(pid, child, Some(share));
            }
        }
    }
}

fn is_program(vm: &Vm) -> bool {
    vm.is_listed && matches!(vm.info.hypervisor, Hypervisor::Program(_))
}
