//! Reads from the host all that continuity needs in one tick, before its first step.

use std::collections::{HashMap, HashSet};

use super::{Continuity, DeviceKey, DeviceReading, FORGET_EVERY};
use crate::model::{Batch, Nic, Removals, VmSet};

#[derive(Debug, Default)]
pub(super) struct HostReadings {
    /// Device numbers by name, in this process's own namespace.
    devices: HashMap<String, Option<u64>>,
    /// The numbers of all devices, in a tick that forgets the deleted ones; `None` where they cannot be read.
    pub(super) all_devices: Option<HashSet<u64>>,
    /// In seconds of Unix time; read in a tick with a new process or thread.
    pub(super) boot_time: Option<u64>,
}

impl HostReadings {
    pub(super) fn read(
        continuity: &Continuity,
        (vms, batch): (&VmSet, &Batch),
        (removals, last): (&Removals, &Batch),
    ) -> Self {
        let host = &continuity.host;
        let exited: HashSet<u32> =
            batch.exits.iter().filter(|exit| exit.netns.is_none()).map(|exit| exit.ifindex).collect();
        // Most devices were read in the last tick and need no second look: that saves one system call for each.
        let is_unknown = |batch: &Batch, nic: &Nic| {
            let of_device = batch.taps.get(nic).map(|reading| reading.ifindex);
            let of_programs = batch.ebpf.get(nic).map(|reading| reading.ifindex);
            let is_sure = |ifindex: u32| !exited.contains(&ifindex) && continuity.is_sure(nic, ifindex);
            last.nic_exits.contains_key(nic)
                || of_device.into_iter().chain(of_programs).any(|ifindex| !is_sure(ifindex))
        };
        let present = vms.local_nics().filter(|nic| is_unknown(batch, nic));
        let removed = removals.vms.local_nics().filter(|nic| is_unknown(last, nic));
        let of_exit = |ifindex: &u32| {
            let key = DeviceKey { netns: None, ifindex: *ifindex, name: None };
            Some(&continuity.accounts.get(&key)?.nic)
        };
        let nics = present.chain(removed).chain(exited.iter().filter_map(of_exit));
        let devices = nics.map(|nic| (nic.tap.clone(), host.device_id(&nic.tap))).collect();
        let forgets = continuity.tick.is_multiple_of(FORGET_EVERY);
        Self {
            devices,
            all_devices: forgets.then(|| host.device_ids().ok()).flatten(),
            boot_time: [batch, last]
                .iter()
                .any(|batch| continuity.processes.has_new(batch))
                .then(|| host.boot_time())
                .flatten(),
        }
    }

    /// The number that the kernel gives to no other device; `None` where there is no such device.
    pub(super) fn device_id(&self, name: &str) -> Option<u64> {
        debug_assert!(self.devices.contains_key(name), "{name} was not read before the tick");
        self.devices.get(name).copied().flatten()
    }

    /// The same of a device that was read, in any namespace.
    pub(super) fn identify(&self, reading: &DeviceReading<'_>) -> Option<u64> {
        match reading.nic.netns {
            None => self.device_id(&reading.nic.tap),
            Some(_) => reading.namespace,
        }
    }
}
