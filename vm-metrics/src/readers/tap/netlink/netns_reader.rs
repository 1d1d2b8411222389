//! Reads the TAPs of one network namespace.

use std::collections::{HashMap, HashSet};

use crate::model::{Batch, ExitNotice, Nic, NicSource, Removals, TapReading};
use crate::net::devices::Devices;
use crate::net::rtnetlink::Dump;
use crate::readers::ReaderError;

/// While devices come and go a dump may lack some; what a few dumps do not have is left to sysfs, or to the next tick.
const DUMPS: usize = 3;

/// The devices of the last two ticks, the latest first: so long the last counters of a device are kept.
pub(super) type RecentReads = [HashSet<u32>; 2];

#[derive(Debug)]
pub(super) struct NetnsReader<'n> {
    /// The inode of the namespace, when it is not this process's own.
    pub(super) netns: Option<u64>,
    pub(super) devices: &'n mut Devices,
    pub(super) recent: &'n mut RecentReads,
}

impl NetnsReader<'_> {
    pub(super) fn read(&mut self, nics: &[&Nic], batch: &mut Batch) -> Result<(), ReaderError> {
        let exits = self.devices.exits().iter();
        batch.exits.extend(exits.map(|&(ifindex, exit)| ExitNotice { netns: self.netns, ifindex, exit }));
        let read = self.read_all(nics, batch);
        self.read_short_lived(nics, batch);
        self.recent.swap(0, 1);
        self.recent[0] =
            nics.iter().filter_map(|nic| batch.taps.get(*nic)).map(|reading| reading.ifindex).collect();
        read
    }

    pub(super) fn read_final(&mut self, nics: &[&Nic], removals: &Removals, batch: &mut Batch) {
        self.read_the_deleted(nics, removals, batch);
        if let Err(error) = self.read_the_living(nics, removals, batch) {
            tracing::warn!("last counters: {error}");
        }
        // One may have gone in between.
        self.read_the_deleted(nics, removals, batch);
        let leaves = |ifindex: u32| removals.ifindexes.values().any(|index| *index == ifindex);
        let is_read = |ifindex| leaves(ifindex) || self.recent.iter().any(|read| read.contains(&ifindex));
        // What has the name of a NIC of this tick stands for it in the next one, when no device does.
        let links = &self.devices.links;
        let Some(events) = &mut self.devices.events else { return };
        for (tap, reading) in events.take_unread(|name| !links.was_asked_for(name), is_read) {
            batch.short_lived.push((Nic { tap, netns: self.netns }, reading));
        }
    }

    fn read_all(&mut self, nics: &[&Nic], batch: &mut Batch) -> Result<(), ReaderError> {
        // By the name first: the counters then are of the device that had it, whatever happens to the name meanwhile.
        let Devices { links, events, .. } = &mut *self.devices;
        let has_appeared = |nic: &Nic| events.as_ref().is_some_and(|events| events.has_appeared(&nic.tap));
        let found = links.find(nics.iter().copied(), has_appeared)?.into_iter();
        let mut missing: HashMap<_, _> =
            found.map(|(ifindex, nic)| (ifindex, (nic, links.kind_of(&nic.tap)))).collect();
        if self.netns.is_some() {
            // A dump would have all devices of the namespace, of which others may make any number.
            for (ifindex, (nic, kind)) in missing {
                if let Some(stats) = links.stats_of(ifindex)? {
                    let source = NicSource::Netlink;
                    batch.taps.insert(nic.clone(), TapReading { ifindex, source, kind, stats });
                }
            }
            return Ok(());
        }
        for _ in 0..DUMPS {
            if missing.is_empty() {
                break;
            }
            let dump = links.stats(|ifindex, stats| {
                if let Some((nic, kind)) = missing.remove(&ifindex) {
                    let source = NicSource::Netlink;
                    batch.taps.insert(nic.clone(), TapReading { ifindex, source, kind, stats });
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
    fn read_short_lived(&mut self, nics: &[&Nic], batch: &mut Batch) {
        self.devices.take_events();
        let now: HashSet<u32> =
            nics.iter().filter_map(|nic| batch.taps.get(*nic)).map(|reading| reading.ifindex).collect();
        let is_read =
            |ifindex| now.contains(&ifindex) || self.recent.iter().any(|read| read.contains(&ifindex));
        let Some(events) = &mut self.devices.events else { return };
        let unread = events.take_unread(|_| true, is_read);
        if unread.is_empty() {
            return;
        }
        let wanted: HashSet<&Nic> = nics.iter().copied().collect();
        for (tap, reading) in unread {
            let nic = Nic { tap, netns: self.netns };
            if wanted.contains(&nic) && !batch.taps.contains_key(&nic) {
                batch.short_lived_nics.insert(nic.clone());
                batch.taps.insert(nic, reading);
            } else {
                batch.short_lived.push((nic, reading));
            }
        }
    }

    fn read_the_deleted(&mut self, nics: &[&Nic], removals: &Removals, batch: &mut Batch) {
        self.devices.take_events();
        let Some(events) = &self.devices.events else { return };
        for nic in nics {
            if let Some(&ifindex) = removals.ifindexes.get(*nic)
                && let Some((reading, exit)) = events.last_counters(&nic.tap, ifindex)
                && (!batch.taps.contains_key(*nic) || self.devices.deleted().contains(&ifindex))
            {
                batch.nic_exits.insert((*nic).clone(), exit);
                batch.taps.insert((*nic).clone(), reading);
            }
        }
    }

    /// A device may outlive its VM.
    fn read_the_living(
        &mut self,
        nics: &[&Nic],
        removals: &Removals,
        batch: &mut Batch,
    ) -> Result<(), ReaderError> {
        let links = &mut self.devices.links;
        let unread: Vec<_> = nics.iter().filter(|nic| !batch.taps.contains_key(**nic)).collect();
        let mut living = HashMap::new();
        for nic in unread {
            let Some(&ifindex) = removals.ifindexes.get(*nic) else { continue };
            if links.index_of(&nic.tap)? == Some(ifindex) {
                living.insert(ifindex, ((*nic).clone(), links.kind_of(&nic.tap)));
            }
        }
        if living.is_empty() {
            return Ok(());
        }
        if self.netns.is_some() {
            for (ifindex, (nic, kind)) in living {
                if let Some(stats) = links.stats_of(ifindex)? {
                    batch.taps.insert(nic, TapReading { ifindex, source: NicSource::Netlink, kind, stats });
                }
            }
            return Ok(());
        }
        links.stats(|ifindex, stats| {
            if let Some((nic, kind)) = living.remove(&ifindex) {
                batch.taps.insert(nic, TapReading { ifindex, source: NicSource::Netlink, kind, stats });
            }
        })?;
        Ok(())
    }
}
