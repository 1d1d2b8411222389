//! How many VMs have started and ended since the daemon's first look.

use super::Hypervisor;

/// Why a VM is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Its process has ended.
    Exited,
    /// No source lists it any more, and its process is not known to have ended.
    Gone,
}

/// VMs by what runs them. The labels are these, whatever programs tenants run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lifecycle {
    counts: [LifecycleCounts; HYPERVISORS.len()],
}

/// Of one kind of hypervisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LifecycleCounts {
    pub starts: u64,
    pub exited: u64,
    pub gone: u64,
}

/// The last one also stands for all programs that have no name of their own here.
const HYPERVISORS: [Hypervisor; 5] = [
    Hypervisor::Qemu,
    Hypervisor::CloudHypervisor,
    Hypervisor::Firecracker,
    Hypervisor::Xen,
    Hypervisor::Other,
];

impl Lifecycle {
    pub fn start(&mut self, hypervisor: Hypervisor) {
        self.of(hypervisor).starts += 1;
    }

    pub fn end(&mut self, hypervisor: Hypervisor, reason: EndReason) {
        let counts = self.of(hypervisor);
        match reason {
            EndReason::Exited => counts.exited += 1,
            EndReason::Gone => counts.gone += 1,
        }
    }

    pub fn each(&self) -> impl Iterator<Item = (Hypervisor, LifecycleCounts)> {
        HYPERVISORS.into_iter().zip(self.counts)
    }

    fn of(&mut self, hypervisor: Hypervisor) -> &mut LifecycleCounts {
        let known = HYPERVISORS.iter().position(|known| *known == hypervisor);
        &mut self.counts[known.unwrap_or(HYPERVISORS.len() - 1)]
    }
}
