//! Reads the TAPs of one network namespace.

use std::collections::{HashMap, HashSet};

use crate::model::{
    Batch, Device, DeviceId, Nic, NicReadings, NicSource, ShortLivedDevice, TapReading, TapStats,
};
use crate::net::device_table::DeviceTable;
use crate::net::devices::Devices;
use crate::net::rtnetlink::{DeletedDevice, Dump};
use crate::readers::ReaderError;

/// While devices come and go a dump may lack some; what a few dumps do not have is left to sysfs, or to the next tick.
const DUMPS: usize = 3;

#[derive(Debug)]
pub(super) struct NetnsReader<'n> {
    /// The inode of the namespace, when it is not this process's own.
    pub(super) netns: Option<u64>,
    pub(super) devices: &'n mut Devices,
    pub(super) table: &'n mut DeviceTable,
}

impl NetnsReader<'_> {
    pub(super) fn read(&mut self, nics: &[(usize, &Nic)], batch: &mut Batch) -> Result<(), ReaderError> {
        let read = match self.devices.unresolved() {
            Some(problem) => Err(problem.into()),
            None => self.read_all(nics, batch),
        };
        self.read_short_lived(nics, batch);
        read
    }

    pub(super) fn read_final(&mut self, nics: &[(usize, &Nic)], batch: &mut Batch) {
        self.read_the_deleted(nics, batch);
        if let Err(error) = self.read_the_living(nics, batch) {
            tracing::warn!("last counters: {error}");
        }
        // One may have gone in between.
        self.read_the_deleted(nics, batch);
        // What has the name of a NIC of this tick stands for it in the next one, when no device does.
        let links = &self.devices.links;
        let Some(events) = &mut self.devices.events else { return };
        let unread = events.take_unread(|name| !links.was_asked_for(name));
        batch.short_lived.extend(unread.into_iter().map(|unread| self.short_lived(unread)));
    }

    fn read_all(&mut self, nics: &[(usize, &Nic)], batch: &mut Batch) -> Result<(), ReaderError> {
        let links = &mut self.devices.links;
        let mut missing: HashMap<u32, usize> =
            nics.iter().filter_map(|(at, _)| Some((batch.nics[*at].device?.id.ifindex, *at))).collect();
        if self.netns.is_some() {
            // A dump would have all devices of the namespace, of which others may make any number.
            for (ifindex, at) in missing {
                batch.nics[at].tap = links.stats_of(ifindex)?.map(reading);
            }
            return Ok(());
        }
        for _ in 0..DUMPS {
            if missing.is_empty() {
                break;
            }
            let dump = links.stats(|ifindex, stats| {
                if let Some(at) = missing.remove(&ifindex) {
                    batch.nics[at].tap = Some(reading(stats));
                }
            })?;
            if dump == Dump::Complete {
                break;
            }
        }
        Ok(())
    }

    /// Devices that have come and gone since the last tick: what they had counted at their end is all there is of them.
    /// The last of them that had the name of a NIC without a device stands for it.
    fn read_short_lived(&mut self, nics: &[(usize, &Nic)], batch: &mut Batch) {
        self.devices.take_events(self.netns, self.table);
        let Some(events) = &mut self.devices.events else { return };
        let unread = events.take_unread(|_| true);
        if unread.is_empty() {
            return;
        }
        let read: HashSet<DeviceId> =
            nics.iter().filter_map(|(at, _)| Some(batch.nics[*at].read_device()?.id)).collect();
        let named: HashMap<&str, usize> = nics.iter().map(|(at, nic)| (nic.tap.as_str(), *at)).collect();
        for unread in unread {
            let short_lived = self.short_lived(unread);
            let ShortLivedDevice { nic, device, stats } = &short_lived;
            if read.contains(&device.id) {
                continue;
            }
            let stands_for = named.get(nic.tap.as_str()).map(|at| &mut batch.nics[*at]);
            let is_free = |readings: &&mut NicReadings| {
                readings.tap.is_none() && readings.device.is_none_or(|now| now.id == device.id)
            };
            match stands_for.filter(is_free) {
                Some(readings) => {
                    (readings.device, readings.is_short_lived) = (Some(*device), true);
                    readings.tap = Some(reading(*stats));
                }
                None => batch.short_lived.push(short_lived),
            }
        }
    }

    fn short_lived(&self, (device, message): (Device, DeletedDevice)) -> ShortLivedDevice {
        ShortLivedDevice { nic: Nic { tap: message.name, netns: self.netns }, device, stats: message.stats }
    }

    fn read_the_deleted(&mut self, nics: &[(usize, &Nic)], batch: &mut Batch) {
        self.devices.take_events(self.netns, self.table);
        let Some(events) = &self.devices.events else { return };
        for readings in nics.iter().map(|(at, _)| *at) {
            let readings = &mut batch.nics[readings];
            if let (Some(device), None) = (readings.device, readings.tap)
                && let Some(last) = events.final_counters(device.id)
            {
                (readings.exit, readings.tap) = (Some(last.exit), Some(reading(last.stats)));
            }
        }
    }

    /// A device may outlive its VM.
    fn read_the_living(&mut self, nics: &[(usize, &Nic)], batch: &mut Batch) -> Result<(), ReaderError> {
        for (at, _) in nics {
            let readings = &mut batch.nics[*at];
            if let (Some(device), None) = (readings.device, readings.tap)
                && self.table.has(device.id)
            {
                readings.tap = self.devices.links.stats_of(device.id.ifindex)?.map(reading);
            }
        }
        Ok(())
    }
}

fn reading(stats: TapStats) -> TapReading {
    TapReading { source: NicSource::Netlink, stats }
}
