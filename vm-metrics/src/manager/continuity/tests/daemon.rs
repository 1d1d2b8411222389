//! A daemon's accounts with the devices that it knows, for tests.

use std::path::Path;

use crate::host::Host;
use crate::manager::continuity::Continuity;
use crate::model::{Device, DeviceExit, DeviceId, Nic, NicKind, Trust};
use crate::net::device_table::DeviceTable;
use crate::readers::Purpose;

/// The number of each foreign namespace.
const NAMESPACE: u64 = 3;

#[derive(Default)]
pub(in crate::manager) struct Daemon {
    pub(in crate::manager) continuity: Continuity,
    devices: DeviceTable,
}

impl Daemon {
    pub(in crate::manager) fn new(host: &Host, purpose: Purpose, state_dir: Option<&Path>) -> Self {
        let mut devices = DeviceTable::new(host);
        let continuity = Continuity::new(host.clone(), purpose, state_dir, Trust::default(), &mut devices);
        Self { continuity, devices }
    }

    /// Begins a tick after devices have left their namespaces. Returns those that were known.
    pub(in crate::manager) fn begin_tick(
        &mut self,
        exits: &[(&Nic, u32, DeviceExit)],
    ) -> Vec<(DeviceId, DeviceExit)> {
        self.devices.begin_tick();
        let known = exits.iter().filter_map(|(nic, ifindex, exit)| {
            let (device, _) = self.devices.exit(nic.netns, *ifindex, || false)?;
            Some((device.id, *exit))
        });
        known.collect::<Vec<_>>().into_iter().chain(self.devices.take_gone()).collect()
    }

    /// The device that has this name and index now; by its name alone where the index is 0.
    pub(in crate::manager) fn find(&mut self, nic: &Nic, ifindex: u32, kind: NicKind) -> Device {
        let namespace = nic.netns.map(|_| NAMESPACE);
        self.devices.find(nic, ifindex, kind, namespace)
    }

    /// The same of one that has gone in this tick.
    pub(in crate::manager) fn lose(&mut self, nic: &Nic, ifindex: u32) -> Device {
        let device = self.find(nic, ifindex, NicKind::Tap);
        self.devices.exit(nic.netns, ifindex, || false);
        device
    }
}
