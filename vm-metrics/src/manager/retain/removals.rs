//! Finds removed VMs and interfaces, and the readings that are theirs.

use std::collections::HashMap;
use std::mem;

use crate::model::{Batch, Device, DeviceId, InstanceInfo, NicReadings, VmSet, VmStats, by_vm};

/// The VMs of a tick, and their published numbers in the same order.
#[derive(Debug, Default)]
pub(in crate::manager) struct LastTick {
    pub(in crate::manager) vms: VmSet,
    pub(in crate::manager) stats: Vec<VmStats>,
}

/// A VM by its id and process.
type VmKey<'v> = (&'v str, Option<u32>);

fn key(vm: &InstanceInfo) -> VmKey<'_> {
    (&vm.id, vm.hypervisor_pid)
}

/// Takes out VMs whose process has ended since they were listed; a program's own source may not know. Then finds removed
/// VMs, and VMs with removed interfaces, and adds places for their readings.
///
/// An interface is also removed when it cannot be read any more, or when another device has its name.
pub(in crate::manager) fn remove(before: &LastTick, vms: &mut VmSet, batch: &mut Batch) -> VmSet {
    let of_ended = take_ended(vms, batch);
    let present: HashMap<VmKey<'_>, _> =
        by_vm(vms, &batch.nics).map(|(vm, nics)| (key(vm), (vm, nics))).collect();
    let (mut removals, mut devices) = (Vec::new(), Vec::new());
    for (vm, stats) in before.vms.vms.iter().zip(&before.stats) {
        let still = present.get(&key(vm));
        let nics = vm.nics.iter().zip(stats.nics.iter().map(|nic| nic.found));
        let is_lost = |nic, found: Option<Device>| {
            let Some((now, readings)) = still else { return true };
            let now = now.nics.iter().zip(*readings).find(|(now, _)| *now == nic);
            let now = now.and_then(|(_, readings)| readings.read_device());
            found.is_some_and(|was| now.is_none_or(|now| now.id != was.id))
        };
        let lost: Vec<_> = nics.filter(|(nic, found)| is_lost(*nic, *found)).collect();
        if still.is_none() || !lost.is_empty() {
            devices.extend(lost.iter().map(|(_, found)| *found));
            let nics = lost.into_iter().map(|(nic, _)| nic.clone()).collect();
            removals.push(InstanceInfo { nics, ..vm.clone() });
        }
    }
    let final_readings = final_readings(&devices, batch.nics.iter().chain(&of_ended));
    batch.nics.extend(final_readings);
    VmSet { vms: removals }
}

/// Returns the readings of the interfaces of ended VMs.
fn take_ended(vms: &mut VmSet, batch: &mut Batch) -> Vec<NicReadings> {
    let has_ended = |vm: &InstanceInfo| vm.hypervisor_pid.is_some_and(|pid| batch.ended.contains(&pid));
    if !vms.vms.iter().any(has_ended) {
        return Vec::new();
    }
    let (mut readings, mut of_ended) = (mem::take(&mut batch.nics).into_iter(), Vec::new());
    vms.vms.retain(|vm| {
        let of_vm = readings.by_ref().take(vm.nics.len());
        let has_ended = vm.hypervisor_pid.is_some_and(|pid| batch.ended.contains(&pid));
        if has_ended {
            of_ended.extend(of_vm)
        } else {
            batch.nics.extend(of_vm)
        }
        !has_ended
    });
    of_ended
}

/// What is known of removed devices already. One that another VM has now was read in this tick: sharing one reading keeps
/// every byte on exactly one VM.
fn final_readings<'r>(
    devices: &[Option<Device>],
    readings: impl Iterator<Item = &'r NicReadings>,
) -> Vec<NicReadings> {
    if devices.is_empty() {
        return Vec::new();
    }
    let readings = readings.filter_map(|readings| Some((readings.read_device()?.id, readings)));
    let read: HashMap<DeviceId, &NicReadings> = readings.collect();
    let of_device = |device: &Option<Device>| {
        let known = device.and_then(|device| read.get(&device.id)).map(|readings| **readings);
        known.unwrap_or(NicReadings { device: *device, ..NicReadings::default() })
    };
    devices.iter().map(of_device).collect()
}

#[cfg(test)]
mod tests;
