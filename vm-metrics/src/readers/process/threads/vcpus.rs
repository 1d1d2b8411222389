//! How many vCPUs of each VM have series. Pure.

use std::collections::HashMap;

use super::share::{Demand, MAX_VCPUS_OF_STRANGERS, shares};
use crate::model::{Excess, InstanceInfo, ThreadsReading, Trust, VmSet};

/// vCPUs of one VM. Anybody may give threads the names of vCPUs.
const MAX_OF_VM: usize = 1024;

/// Omits the highest vCPUs beyond a VM's limit. VMs of untrusted users have at most their allocated vCPUs, and share a
/// budget.
pub(super) fn limit(
    vms: &VmSet,
    trust: &Trust,
    threads: &mut HashMap<u32, ThreadsReading>,
    overuse: &mut Excess,
) {
    let mut demands = Vec::new();
    for vm in &vms.vms {
        let reading = vm.hypervisor_pid.and_then(|pid| threads.get_mut(&pid).map(|reading| (pid, reading)));
        let Some((pid, reading)) = reading.filter(|(_, reading)| !reading.vcpus.is_empty()) else { continue };
        let is_trusted = trust.is_trusted(vm.uid);
        cut(vm, reading, if is_trusted { MAX_OF_VM } else { allocated(vm) }, overuse);
        if !is_trusted {
            demands.push(Demand { pid, uid: vm.uid, count: reading.vcpus.len() as u64 });
        }
    }
    let shares = shares(MAX_VCPUS_OF_STRANGERS, &demands);
    for vm in &vms.vms {
        let Some(pid) = vm.hypervisor_pid else { continue };
        if let Some((share, reading)) = shares.get(&pid).zip(threads.get_mut(&pid)) {
            cut(vm, reading, usize::try_from(*share).unwrap_or(usize::MAX), overuse);
        }
    }
}

fn cut(vm: &InstanceInfo, reading: &mut ThreadsReading, limit: usize, overuse: &mut Excess) {
    overuse.add(vm.uid, "vcpus", reading.vcpus.len().saturating_sub(limit) as u64);
    reading.vcpus.truncate(limit);
}

fn allocated(vm: &InstanceInfo) -> usize {
    let allocated = vm.max_vcpus.or(vm.allocated_vcpus).and_then(|vcpus| usize::try_from(vcpus).ok());
    allocated.map_or(MAX_OF_VM, |vcpus| vcpus.min(MAX_OF_VM))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SchedTimes, VcpuReading};

    /// The remaining vCPUs of VMs, each with a user, allocated vCPUs and vCPU threads; and the overuse.
    fn left(vms: &[(u32, Option<u32>, u32)]) -> (Vec<usize>, u64) {
        let info = |(pid, (uid, allocated_vcpus, _)): (u32, &(u32, Option<u32>, u32))| InstanceInfo {
            hypervisor_pid: Some(pid),
            uid: Some(*uid),
            allocated_vcpus: *allocated_vcpus,
            ..InstanceInfo::default()
        };
        let set = VmSet { vms: (0..).zip(vms).map(info).collect() };
        let vcpu = |vcpu| VcpuReading { vcpu, thread: vcpu, start_ticks: None, times: SchedTimes::default() };
        let reading = |count: u32| ThreadsReading {
            vcpus: (0..count).map(vcpu).collect(),
            ..ThreadsReading::default()
        };
        let mut threads = (0..).zip(vms).map(|(pid, vm)| (pid, reading(vm.2))).collect();
        let mut excess = Excess::default();
        limit(&set, &Trust::default(), &mut threads, &mut excess);
        let over = excess.into_list().iter().map(|overuse| overuse.count).sum();
        ((0..).take(vms.len()).map(|pid: u32| threads[&pid].vcpus.len()).collect(), over)
    }

    #[test]
    fn strangers_have_no_more_than_allocated() {
        assert_eq!(left(&[(1000, Some(4), 9), (0, Some(4), 9)]), (vec![4, 9], 5));
        assert_eq!(left(&[(1000, None, 2000), (0, None, 2000)]), (vec![1024, 1024], 2 * 976));
    }

    #[test]
    fn strangers_share_and_root_is_not_cut() {
        let mut vms = vec![(1000, None, 1000); 20];
        vms.extend([(1001, None, 7), (0, None, 1000)]);
        let (left, over) = left(&vms);
        assert_eq!(left[20..], [7, 1000]);
        assert_eq!(left[..20], [409; 20]);
        assert_eq!(over, 20 * 591);
    }
}
