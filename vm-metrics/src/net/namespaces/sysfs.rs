//! Finds devices by the files of sysfs, where netlink does not.

use std::collections::HashMap;
use std::fs;

use crate::host::Host;
use crate::model::{NicKind, is_device_name};

/// The devices of the own namespace that were found in the last tick, by name.
#[derive(Debug, Default)]
pub(super) struct SysfsDevices {
    known: HashMap<String, SysfsDevice>,
    found: HashMap<String, SysfsDevice>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct SysfsDevice {
    pub(super) birth: u64,
    pub(super) ifindex: u32,
    pub(super) kind: NicKind,
}

impl SysfsDevices {
    /// Forgets the devices that the last tick did not ask for.
    pub(super) fn begin_tick(&mut self) {
        self.known = std::mem::take(&mut self.found);
    }

    /// The device that has this name now.
    pub(super) fn find(&mut self, host: &Host, name: &str) -> Option<SysfsDevice> {
        let birth = is_device_name(name).then(|| host.device_id(name)).flatten()?;
        let known = self.known.get(name).filter(|known| known.birth == birth).copied();
        let device = match known {
            Some(device) => device,
            None => read(host, name, birth)?,
        };
        self.found.insert(name.to_owned(), device);
        Some(device)
    }
}

fn read(host: &Host, name: &str, birth: u64) -> Option<SysfsDevice> {
    let directory = host.net_device(name);
    let ifindex = fs::read_to_string(directory.join("ifindex")).ok()?.trim().parse().ok()?;
    // Only a macvtap has such a directory.
    let kind = if directory.join("macvtap").exists() { NicKind::Macvtap } else { NicKind::Tap };
    // The files may be of a device that has got the name meanwhile.
    (host.device_id(name) == Some(birth)).then_some(SysfsDevice { birth, ifindex, kind })
}
