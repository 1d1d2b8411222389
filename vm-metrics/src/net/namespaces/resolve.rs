//! Finds the device of each interface, once per tick for all readers.

use super::foreign::ForeignNamespace;
use super::{EnteredNamespace, Namespaces, by_netns};
use crate::model::{Batch, Device, Nic, NicKind, NicReadings, VmSet};

impl Namespaces {
    /// Opens the namespaces that are new in this tick, takes the events of all, and finds the devices.
    ///
    /// `batch.ended` has to be complete: the readers of processes come first.
    pub(crate) fn resolve(&mut self, vms: &VmSet, batch: &mut Batch) {
        self.select(vms, &batch.ended);
        self.table.begin_tick();
        let nics = by_netns(vms.nics().enumerate());
        self.listen_again();
        let (entered, table) = self.all_devices();
        for EnteredNamespace { netns, number, devices } in entered {
            // What has gone comes first: its index may be that of another device now.
            batch.exits.extend(devices.begin_tick(netns, table));
            let nics = nics.get(&netns).map(Vec::as_slice).unwrap_or_default();
            for (ifindex, (at, nic)) in devices.find(nics) {
                let kind = devices.links.kind_of(&nic.tap);
                batch.nics[at].device = Some(table.find(nic, ifindex, kind, number));
            }
        }
        let own = nics.get(&None).map(Vec::as_slice).unwrap_or_default();
        self.find_in_sysfs(own, batch);
        batch.exits.extend(self.table.take_gone());
    }

    /// Opens sockets of events that were refused.
    fn listen_again(&mut self) {
        if let Some(own) = self.own.as_mut().filter(|own| own.is_listening_due()) {
            own.listen();
        }
        self.foreign.values_mut().for_each(|known| known.listen_again(&self.poller));
    }

    /// Netlink may be forbidden, or may have missed a device. One device is one interface's.
    fn find_in_sysfs(&mut self, own: &[(usize, &Nic)], batch: &mut Batch) {
        let Self { sysfs, table, host, .. } = self;
        sysfs.begin_tick();
        for (at, nic) in own {
            let device = &mut batch.nics[*at].device;
            if device.is_none()
                && let Some(found) = sysfs.find(host, &nic.tap)
            {
                *device = Some(table.find_born(nic, found.ifindex, found.kind, Some(found.birth)));
            }
        }
    }

    /// The device that has this name now in a foreign namespace, for a reader that goes by names.
    ///
    /// Where the namespace was not entered, a device is taken for a TAP.
    pub(crate) fn find_by_name(&mut self, nic: &Nic) -> Option<Device> {
        let known = self.foreign.get_mut(&nic.netns?);
        match known {
            Some(ForeignNamespace { devices: Some(devices), .. }) => {
                let ifindex = devices.links.index_of(&nic.tap).ok()??;
                let kind = devices.links.kind_of(&nic.tap);
                let number = self.foreign[&nic.netns?].number();
                Some(self.table.find(nic, ifindex, kind, Some(number)))
            }
            known => {
                // Held open, so that no other namespace gets the inode meanwhile.
                let number = known.filter(|known| known.handle.is_some()).map(|known| known.number);
                Some(self.table.find(nic, 0, NicKind::Tap, number))
            }
        }
    }

    /// Notes which devices of this tick were read.
    pub(crate) fn note_read(&mut self, batch: &Batch) {
        self.table.note_read(batch.nics.iter().filter_map(NicReadings::read_device).map(|device| device.id));
    }
}
