//! Tells each device from all others, over ticks and daemons.

use std::collections::{HashMap, HashSet};

use crate::host::Host;
use crate::model::{Device, DeviceExit, DeviceId, Nic, NicKind};

/// Ticks between two searches for devices that have gone without an event.
const SEARCH_EVERY: u64 = 32;

/// The devices that VMs have or had, with their names. The engine forgets those that nothing counts for any more.
#[derive(Debug, Default)]
pub(crate) struct DeviceTable {
    host: Host,
    /// The births of the devices of the own namespace that are older than this process.
    old: Option<HashSet<u64>>,
    tick: u64,
    generations: u64,
    by_index: HashMap<(Option<u64>, u32), KnownDevice>,
    /// Devices in namespaces in which no index can be read.
    by_name: HashMap<Nic, KnownDevice>,
}

#[derive(Debug)]
struct KnownDevice {
    device: Device,
    name: String,
    /// The last tick in which an interface of a VM meant it; 0 for none.
    found: u64,
    /// The last tick in which it was read; 0 for none.
    read: u64,
}

impl KnownDevice {
    /// Whether the device that has this name and birth now is this one.
    fn is(&self, name: &str, birth: Option<u64>) -> bool {
        self.device.birth.zip(birth).map_or_else(|| self.name == name, |(known, now)| known == now)
    }
}

impl DeviceTable {
    pub(crate) fn new(host: &Host) -> Self {
        Self { host: host.clone(), old: host.device_ids().ok(), ..Self::default() }
    }

    pub(crate) fn begin_tick(&mut self) {
        self.tick += 1;
    }

    /// The device that has this name and index now. `namespace` is the number of a foreign namespace.
    pub(crate) fn find(&mut self, nic: &Nic, ifindex: u32, kind: NicKind, namespace: Option<u64>) -> Device {
        let known = self.by_index.get(&(nic.netns, ifindex));
        // A device of the last tick needs no second look, unless it was deleted: that saves one system call for each.
        let sure =
            known.filter(|known| known.found + 1 >= self.tick && known.found > 0 && known.name == nic.tap);
        let birth = match (nic.netns, sure) {
            (None, Some(known)) => known.device.birth,
            (None, None) => self.host.device_id(&nic.tap),
            (Some(_), _) => namespace,
        };
        self.find_born(nic, ifindex, kind, birth)
    }

    /// The same of a device whose birth is known.
    pub(crate) fn find_born(&mut self, nic: &Nic, ifindex: u32, kind: NicKind, birth: Option<u64>) -> Device {
        let (key, tick) = ((nic.netns, ifindex), self.tick);
        if let Some(known) = self.by_index.get_mut(&key).filter(|known| known.is(&nic.tap, birth)) {
            known.device = Device { kind, birth: birth.or(known.device.birth), ..known.device };
            known.found = tick;
            if known.name != nic.tap {
                known.name.clone_from(&nic.tap);
            }
            return known.device;
        }
        let device = self.indexed(nic, ifindex, kind, birth);
        self.by_index.insert(key, KnownDevice { device, name: nic.tap.clone(), found: tick, read: 0 });
        device
    }

    /// A device that was known by its name, when its index is read for the first time; else a new one.
    fn indexed(&mut self, nic: &Nic, ifindex: u32, kind: NicKind, birth: Option<u64>) -> Device {
        match self.by_name.remove(nic).filter(|known| known.found + 1 >= self.tick) {
            Some(KnownDevice { device, .. }) => {
                Device { id: DeviceId { ifindex, ..device.id }, kind, birth, ..device }
            }
            None => self.new_device(nic.netns, ifindex, kind, birth),
        }
    }

    /// The device of this name in a namespace in which no index can be read.
    pub(crate) fn find_named(&mut self, nic: &Nic, kind: NicKind, namespace: Option<u64>) -> Device {
        let known = self.by_name.get(nic).filter(|known| known.is(&nic.tap, namespace));
        let device = match known {
            Some(known) => Device { kind, birth: namespace.or(known.device.birth), ..known.device },
            None => self.new_device(nic.netns, 0, kind, namespace),
        };
        let known = KnownDevice { device, name: nic.tap.clone(), found: self.tick, read: 0 };
        self.by_name.insert(nic.clone(), known);
        device
    }

    /// A device that no event and no tick has shown before.
    pub(crate) fn new_device(
        &mut self,
        netns: Option<u64>,
        ifindex: u32,
        kind: NicKind,
        birth: Option<u64>,
    ) -> Device {
        self.generations += 1;
        let is_young = |birth| self.old.as_ref().is_some_and(|old| !old.contains(&birth));
        let is_young = netns.is_none() && birth.is_some_and(is_young);
        Device { id: DeviceId { netns, ifindex, generation: self.generations }, kind, birth, is_young }
    }

    /// A device that a daemon before this one has saved.
    pub(crate) fn restore(&mut self, nic: &Nic, ifindex: u32, birth: Option<u64>) -> Device {
        let device = self.new_device(nic.netns, ifindex, NicKind::default(), birth);
        let known = KnownDevice { device, name: nic.tap.clone(), found: 0, read: 0 };
        match ifindex {
            0 => self.by_name.insert(nic.clone(), known),
            _ => self.by_index.insert((nic.netns, ifindex), known),
        };
        device
    }

    /// Takes out a device that the kernel reports gone, with whether it was read lately. `None` when it is unknown, or
    /// still there: then the event is about a device before, or it has come back.
    pub(crate) fn exit(
        &mut self,
        netns: Option<u64>,
        ifindex: u32,
        has_come_back: impl FnOnce() -> bool,
    ) -> Option<(Device, bool)> {
        let KnownDevice { device, name, read, .. } = self.by_index.get(&(netns, ifindex))?;
        let (device, was_read) = (*device, *read > 0 && read + 2 >= self.tick);
        let is_there = match (netns, device.birth) {
            (None, Some(birth)) => self.host.device_id(name) == Some(birth),
            _ => has_come_back(),
        };
        if is_there {
            return None;
        }
        self.by_index.remove(&(netns, ifindex));
        Some((device, was_read))
    }

    /// Whether a device is where it was found.
    pub(crate) fn has(&self, id: DeviceId) -> bool {
        self.by_index.get(&(id.netns, id.ifindex)).is_some_and(|known| known.device.id == id)
    }

    /// Whether an interface's name still means this device of the own namespace.
    pub(crate) fn is_still(&self, nic: &Nic, device: &Device) -> bool {
        device.birth.is_some() && self.host.device_id(&nic.tap) == device.birth
    }

    pub(crate) fn note_read(&mut self, devices: impl IntoIterator<Item = DeviceId>) {
        for id in devices {
            let known = self.by_index.get_mut(&(id.netns, id.ifindex));
            if let Some(known) = known.filter(|known| known.device.id == id) {
                known.read = self.tick;
            }
        }
    }

    /// Once in a while, takes out the devices of the own namespace that have gone without an event.
    pub(crate) fn take_vanished(&mut self) -> Vec<(DeviceId, DeviceExit)> {
        if !self.is_time_to_tidy() {
            return Vec::new();
        }
        // Without a list all devices with a birth stay.
        let (tick, there) = (self.tick, self.host.device_ids().ok());
        let is_there = |birth| there.as_ref().is_none_or(|there| there.contains(&birth));
        let vanished = self.by_index.extract_if(|(netns, _), known| {
            netns.is_none() && known.found != tick && !known.device.birth.is_some_and(is_there)
        });
        vanished.map(|(_, known)| (known.device.id, DeviceExit::Deleted)).collect()
    }

    /// Once in a while, forgets devices that no VM has and that nothing counts for any more.
    pub(crate) fn tidy(&mut self, is_counted: impl Fn(DeviceId) -> bool) {
        if self.is_time_to_tidy() {
            let tick = self.tick;
            let stays = |known: &mut KnownDevice| known.found == tick || is_counted(known.device.id);
            self.by_index.retain(|_, known| stays(known));
            self.by_name.retain(|_, known| stays(known));
        }
    }

    fn is_time_to_tidy(&self) -> bool {
        self.tick.is_multiple_of(SEARCH_EVERY)
    }
}

#[cfg(test)]
mod tests;
