//! Finds removed VMs and interfaces, and the readings that are theirs.

use std::collections::{HashMap, HashSet};

use crate::model::{Batch, DeviceExit, ExitNotice, InstanceInfo, Nic, Removals, VmSet, VmStats};

/// Finds removed VMs, and VMs with removed interfaces. An interface is also removed when it cannot be read any more, or
/// when another device has its name.
pub(in crate::manager) fn removals(before: &LastTick, now: &VmSet, batch: &Batch) -> Removals {
    let by_id: HashMap<_, _> = before.stats.iter().map(|stats| (stats.instance_id.as_str(), stats)).collect();
    let ifindex = |vm: &InstanceInfo, nic: &Nic| {
        let nics = &by_id.get(vm.id.as_str())?.nics;
        nics.iter().find(|stats| stats.device == nic.tap && stats.netns == nic.netns)?.ifindex
    };
    let present: HashMap<_, _> = now.vms.iter().map(|vm| (key(vm), vm)).collect();
    let deleted = deleted(batch);
    let gone = |vm: &InstanceInfo| {
        let Some(still) = present.get(&key(vm)) else { return Some(vm.clone()) };
        let lost = |nic: &&Nic| {
            let same = |was: u32| still.nics.contains(nic) && is_still_there(nic, was, batch, &deleted);
            ifindex(vm, nic).is_some_and(|was| !same(was))
        };
        let nics: Vec<_> = vm.nics.iter().filter(lost).cloned().collect();
        (!nics.is_empty()).then(|| InstanceInfo { nics, ..vm.clone() })
    };
    let vms: Vec<_> = before.vms.vms.iter().filter_map(gone).collect();
    let nics = vms.iter().flat_map(|vm| vm.nics.iter().map(move |nic| (vm, nic)));
    let ifindexes = nics.filter_map(|(vm, nic)| Some((nic.clone(), ifindex(vm, nic)?))).collect();
    Removals { vms: VmSet { vms }, ifindexes }
}

fn key(vm: &InstanceInfo) -> (&str, Option<u32>) {
    (&vm.id, vm.hypervisor_pid)
}

/// Whether the device with this index was read. 0 is an unknown index, and may be any.
fn is_still_there(nic: &Nic, was: u32, batch: &Batch, deleted: &DeviceSet) -> bool {
    let read = batch.taps.get(nic).map(|reading| reading.ifindex);
    let read = read.or(batch.ebpf.get(nic).map(|reading| reading.ifindex));
    read.is_some_and(|is| is == 0 || was == 0 || is == was) && !deleted.contains(&(nic.netns, was))
}

/// Devices by namespace and index.
type DeviceSet = HashSet<(Option<u64>, u32)>;

fn deleted(batch: &Batch) -> DeviceSet {
    let deleted = batch.exits.iter().filter(|device| device.exit == DeviceExit::Deleted);
    deleted.map(|ExitNotice { netns, ifindex, .. }| (*netns, *ifindex)).collect()
}

/// Takes final counters of a removed device out of the present readings. They belong to the VM that loses the device,
/// and not to the next VM with that name.
pub(in crate::manager) fn withdraw_from_present(removals: &Removals, batch: &mut Batch) {
    for (nic, ifindex) in &removals.ifindexes {
        let is_it = batch.taps.get(nic).is_some_and(|reading| reading.ifindex == *ifindex);
        if is_it && batch.short_lived_nics.contains(nic) {
            batch.taps.remove(nic);
        }
    }
}

/// Readings of devices that moved to another VM in this tick. Sharing one reading keeps every byte on exactly one VM.
pub(in crate::manager) fn shared_readings(removals: &Removals, batch: &Batch) -> Batch {
    let mut read = Batch { namespaces: batch.namespaces.clone(), ..Batch::default() };
    // An unknown index may be of another device, and so may an index that was free meanwhile.
    let deleted = deleted(batch);
    let is_it = |nic: &Nic, ifindex: u32| ifindex != 0 && !deleted.contains(&(nic.netns, ifindex));
    for (nic, ifindex) in removals.ifindexes.iter().filter(|(nic, ifindex)| is_it(nic, **ifindex)) {
        if let Some(reading) = batch.taps.get(nic).filter(|reading| reading.ifindex == *ifindex) {
            read.taps.insert(nic.clone(), *reading);
        }
        if let Some(reading) = batch.ebpf.get(nic).filter(|reading| reading.ifindex == *ifindex) {
            read.ebpf.insert(nic.clone(), *reading);
        }
        if let Some(reading) = batch.drops.get(nic).filter(|reading| reading.ifindex == *ifindex) {
            read.drops.insert(nic.clone(), *reading);
        } else if batch.drops_awaited.contains(nic) {
            read.drops_awaited.insert(nic.clone());
        }
    }
    read
}

/// The VMs of a tick, and their published numbers.
#[derive(Debug, Default)]
pub(in crate::manager) struct LastTick {
    pub(in crate::manager) vms: VmSet,
    pub(in crate::manager) stats: Vec<VmStats>,
}
