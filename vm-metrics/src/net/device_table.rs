//! Tells each device from all others, over ticks and daemons.

use std::collections::{HashMap, HashSet};
use std::mem;

use crate::host::Host;
use crate::model::{Device, DeviceExit, DeviceId, Nic, NicKind};

/// Ticks between two searches for devices that have gone without an event.
const SEARCH_EVERY: u64 = 32;

/// Ticks for which the event about a replaced device may still come.
const EVENT_PATIENCE: u64 = 2;

/// The devices that VMs have or had. The engine forgets those that nothing counts for any more.
#[derive(Debug, Default)]
pub(crate) struct DeviceTable {
    host: Host,
    /// The births of the devices of the own namespace that are older than this process.
    old: Option<HashSet<u64>>,
    tick: u64,
    generations: u64,
    known: HashMap<Place, KnownDevice>,
    /// Devices whose place another one has, with the tick. The events about them may still come.
    replaced: Vec<(u64, KnownDevice)>,
    /// Replaced devices that are not reported gone yet.
    unreported: Vec<DeviceId>,
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
    /// Whether the last search did not find it.
    is_missing: bool,
}

impl KnownDevice {
    fn new(device: Device, nic: &Nic, found: u64) -> Self {
        Self { device, name: nic.tap.clone(), found, read: 0, is_missing: false }
    }

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
            (known.found, known.is_missing) = (tick, false);
            if known.name != nic.tap {
                known.name.clone_from(&nic.tap);
            }
            return known.device;
        }
        // The index may be read for the first time, of a device that was known by its name.
        let named = (ifindex != 0).then(|| self.known.remove(&Place::new(nic, 0))).flatten();
        let (device, too_old) = match named {
            Some(KnownDevice { device, found, .. }) if found + 1 >= tick => {
                (Device { id: DeviceId { ifindex, ..device.id }, kind, birth, ..device }, None)
            }
            too_old => (self.new_device(nic.netns, ifindex, kind, birth), too_old),
        };
        let replaced = self.known.insert(place, KnownDevice::new(device, nic, tick));
        self.replace(too_old.into_iter().chain(replaced));
        device
    }

    fn replace(&mut self, replaced: impl Iterator<Item = KnownDevice>) {
        for known in replaced {
            self.unreported.push(known.device.id);
            self.replaced.push((self.tick, known));
        }
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
        let replaced = self.known.insert(Place::new(nic, ifindex), KnownDevice::new(device, nic, 0));
        self.replace(replaced.into_iter());
        device
    }

    /// Takes out a device that the kernel reports gone, with whether it was read lately. `None` when it is unknown, or has
    /// come back.
    pub(crate) fn exit(
        &mut self,
        netns: Option<u64>,
        ifindex: u32,
        has_come_back: impl FnOnce() -> bool,
    ) -> Option<(Device, bool)> {
        let place = Place { netns, ifindex, name: None };
        let is_there = |known: &KnownDevice| match (netns, known.device.birth) {
            (None, Some(birth)) => self.host.device_id(&known.name) == Some(birth),
            _ => has_come_back(),
        };
        // The event may be about the device that had the place before.
        let is_before = self.known.get(&place).is_none_or(is_there);
        let gone = if is_before { self.take_replaced(&place) } else { self.known.remove(&place) }?;
        Some((gone.device, gone.read > 0 && gone.read + 2 >= self.tick))
    }

    fn take_replaced(&mut self, place: &Place) -> Option<KnownDevice> {
        let at = self.replaced.iter().position(|(_, known)| Place::of(known.device.id) == *place)?;
        Some(self.replaced.remove(at).1)
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

    /// Takes the devices that were replaced. Once in a while, also those of the own namespace that have gone without an
    /// event: it had the time between two searches to come.
    pub(crate) fn take_gone(&mut self) -> Vec<(DeviceId, DeviceExit)> {
        let tick = self.tick;
        self.replaced.retain(|(at, _)| at + EVENT_PATIENCE >= tick);
        let mut gone = mem::take(&mut self.unreported);
        if self.is_time_to_tidy() {
            // Without a list all devices with a birth stay.
            let there = self.host.device_ids().ok();
            let is_there = |birth| there.as_ref().is_none_or(|there| there.contains(&birth));
            let vanished = self.known.extract_if(|place, known| {
                let is_missing =
                    place.netns.is_none() && known.found != tick && !known.device.birth.is_some_and(is_there);
                mem::replace(&mut known.is_missing, is_missing) && is_missing
            });
            gone.extend(vanished.map(|(_, known)| known.device.id));
        }
        gone.into_iter().map(|id| (id, DeviceExit::Deleted)).collect()
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
