//! Tells each device from all others, over ticks and daemons.

use std::collections::{HashMap, HashSet};

use crate::host::Host;
use crate::model::{Device, DeviceExit, DeviceId, Nic, NicKind};

/// Ticks between two searches for devices that have gone without an event.
const SEARCH_EVERY: u64 = 32;

/// The devices that VMs have or had. The engine forgets those that nothing counts for any more.
#[derive(Debug, Default)]
pub(crate) struct DeviceTable {
    host: Host,
    /// The births of the devices of the own namespace that are older than this process.
    old: Option<HashSet<u64>>,
    tick: u64,
    generations: u64,
    known: HashMap<Place, KnownDevice>,
}

/// Where one device is at a time: its namespace with its index, or with its name where the index is not known.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Place {
    netns: Option<u64>,
    ifindex: u32,
    name: Option<String>,
}

impl Place {
    fn new(nic: &Nic, ifindex: u32) -> Self {
        let name = (ifindex == 0).then(|| nic.tap.clone());
        Self { netns: nic.netns, ifindex, name }
    }

    fn of(DeviceId { netns, ifindex, .. }: DeviceId) -> Self {
        Self { netns, ifindex, name: None }
    }
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

    /// The device that has this name and index now; by its name alone where the index is 0. `namespace` is the number of
    /// a foreign namespace.
    pub(crate) fn find(&mut self, nic: &Nic, ifindex: u32, kind: NicKind, namespace: Option<u64>) -> Device {
        let birth = if nic.netns.is_some() { namespace } else { self.birth(nic, ifindex) };
        self.find_born(nic, ifindex, kind, birth)
    }

    /// Of a device of the own namespace. One of the last tick needs no second look, unless it was deleted: that saves one
    /// system call for each.
    fn birth(&self, nic: &Nic, ifindex: u32) -> Option<u64> {
        let known = self.known.get(&Place::new(nic, ifindex));
        let is_sure =
            |known: &&KnownDevice| known.found > 0 && known.found + 1 >= self.tick && known.name == nic.tap;
        known.filter(is_sure).map_or_else(|| self.host.device_id(&nic.tap), |known| known.device.birth)
    }

    /// The device that has this name, index and birth now.
    pub(crate) fn find_born(&mut self, nic: &Nic, ifindex: u32, kind: NicKind, birth: Option<u64>) -> Device {
        let (place, tick) = (Place::new(nic, ifindex), self.tick);
        if let Some(known) = self.known.get_mut(&place).filter(|known| known.is(&nic.tap, birth)) {
            known.device = Device { kind, birth: birth.or(known.device.birth), ..known.device };
            known.found = tick;
            if known.name != nic.tap {
                known.name.clone_from(&nic.tap);
            }
            return known.device;
        }
        // The index may be read for the first time, of a device that was known by its name.
        let named = (ifindex != 0).then(|| self.known.remove(&Place::new(nic, 0))).flatten();
        let device = match named.filter(|known| known.found + 1 >= tick) {
            Some(KnownDevice { device, .. }) => {
                Device { id: DeviceId { ifindex, ..device.id }, kind, birth, ..device }
            }
            None => self.new_device(nic.netns, ifindex, kind, birth),
        };
        self.known.insert(place, KnownDevice { device, name: nic.tap.clone(), found: tick, read: 0 });
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
        self.known.insert(Place::new(nic, ifindex), known);
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
        let place = Place { netns, ifindex, name: None };
        let KnownDevice { device, name, read, .. } = self.known.get(&place)?;
        let (device, was_read) = (*device, *read > 0 && read + 2 >= self.tick);
        let is_there = match (netns, device.birth) {
            (None, Some(birth)) => self.host.device_id(name) == Some(birth),
            _ => has_come_back(),
        };
        if is_there {
            return None;
        }
        self.known.remove(&place);
        Some((device, was_read))
    }

    /// Whether a device is where it was found.
    pub(crate) fn has(&self, id: DeviceId) -> bool {
        self.known.get(&Place::of(id)).is_some_and(|known| known.device.id == id)
    }

    /// Whether an interface's name still means this device of the own namespace.
    pub(crate) fn is_still(&self, nic: &Nic, device: &Device) -> bool {
        device.birth.is_some() && self.host.device_id(&nic.tap) == device.birth
    }

    pub(crate) fn note_read(&mut self, devices: impl IntoIterator<Item = DeviceId>) {
        for id in devices {
            let known = self.known.get_mut(&Place::of(id));
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
        let vanished = self.known.extract_if(|place, known| {
            place.netns.is_none() && known.found != tick && !known.device.birth.is_some_and(is_there)
        });
        vanished.map(|(_, known)| (known.device.id, DeviceExit::Deleted)).collect()
    }

    /// Once in a while, forgets devices that no VM has and that nothing counts for any more.
    pub(crate) fn tidy(&mut self, is_counted: impl Fn(DeviceId) -> bool) {
        if self.is_time_to_tidy() {
            let tick = self.tick;
            self.known.retain(|_, known| known.found == tick || is_counted(known.device.id));
        }
    }

    fn is_time_to_tidy(&self) -> bool {
        self.tick.is_multiple_of(SEARCH_EVERY)
    }
}

#[cfg(test)]
mod tests;
