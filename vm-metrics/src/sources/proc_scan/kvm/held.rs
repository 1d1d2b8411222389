//! Counts KVM descriptors of a process by their names. Pure.
//!
//! The kernel makes these names: no file of a tenant can have them, for the names of files begin with a slash.

use std::collections::BTreeMap;

const DEVICE: &str = "/dev/kvm";
const VM: &str = "anon_inode:kvm-vm";
const VCPU: &str = "anon_inode:kvm-vcpu:";

/// Descriptors of KVM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvmDescriptors {
    has_device: bool,
    vms: usize,
    /// How many descriptors there are of each vCPU's number.
    vcpus: BTreeMap<u32, usize>,
}

impl KvmDescriptors {
    /// Takes in where a descriptor's link leads.
    pub fn add(&mut self, target: &str) {
        if let Some(vcpu) = target.strip_prefix(VCPU).and_then(|number| number.parse().ok()) {
            *self.vcpus.entry(vcpu).or_default() += 1;
        } else if target == VM {
            self.vms += 1;
        } else if target == DEVICE {
            self.has_device = true;
        }
    }

    /// Whether the process has to do with VMs at all.
    pub fn is_any(&self) -> bool {
        self.has_device || self.vms > 0 || self.has_vcpus()
    }

    /// A VM without a vCPU cannot run.
    pub fn has_vcpus(&self) -> bool {
        !self.vcpus.is_empty()
    }

    /// The vCPUs of the process's VM. `None` where they may be those of several VMs, which have the same numbers.
    pub fn vcpus(&self) -> Option<u32> {
        let is_ambiguous = self.vms > 1 && self.vcpus.values().any(|count| *count > 1);
        u32::try_from(self.vcpus.len()).ok().filter(|count| *count > 0 && !is_ambiguous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(targets: &[&str]) -> KvmDescriptors {
        let mut held = KvmDescriptors::default();
        targets.iter().for_each(|target| held.add(target));
        held
    }

    #[test]
    fn vcpus_are_counted_by_their_numbers() {
        let vm = held(&["/dev/kvm", VM, "anon_inode:kvm-vcpu:0", "anon_inode:kvm-vcpu:5", "socket:[1]"]);
        assert_eq!((vm.vcpus(), vm.has_vcpus()), (Some(2), true));
        // A descriptor may have been duplicated.
        assert_eq!(held(&[VM, "anon_inode:kvm-vcpu:0", "anon_inode:kvm-vcpu:0"]).vcpus(), Some(1));
        assert_eq!(held(&[VM, VM, "anon_inode:kvm-vcpu:0", "anon_inode:kvm-vcpu:1"]).vcpus(), Some(2));
    }

    #[test]
    fn vcpus_of_several_vms_are_unknown() {
        let two = held(&[VM, VM, "anon_inode:kvm-vcpu:0", "anon_inode:kvm-vcpu:0"]);
        assert_eq!((two.vcpus(), two.has_vcpus()), (None, true));
    }

    #[test]
    fn a_name_of_a_file_is_no_vm() {
        let none = held(&["/tmp/anon_inode:kvm-vcpu:0", "anon_inode:kvm-vcpu:x", "anon_inode:[eventfd]"]);
        assert_eq!(none, KvmDescriptors::default());
        assert!(!none.is_any() && held(&["/dev/kvm"]).is_any());
    }
}
