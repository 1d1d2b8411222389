//! The devices of one network namespace, over two sockets that are in it.

use std::collections::{HashMap, HashSet};
use std::mem;

use crate::model::{Batch, DepartedDevice, Gone, Leaving, Nic, NicSource, TapReading};
use crate::readers::ReaderError;
use crate::readers::rtnetlink::{Dump, Events, Links};

/// While devices come and go a dump may lack some; what a few dumps do not have is left to sysfs, or to the next tick.
const DUMPS: usize = 3;

#[derive(Debug)]
pub(super) struct Devices {
    links: Links,
    events: Events,
    /// The devices of the last two ticks, the latest first: so long the last counters of a device are kept.
    read: [HashSet<u32>; 2],
    /// Those that were deleted before the devices of this tick were read: what has the index now is another one.
    deleted: HashSet<u32>,
    /// How often last counters were lost since somebody asked.
    lost: u64,
}

impl Devices {
    pub(super) fn new(links: Links, events: Events) -> Self {
        Self { links, events, read: Default::default(), deleted: HashSet::new(), lost: 0 }
    }

    /// Hears what has happened in the namespace since the last tick.
    pub(super) fn begin_round(&mut self, netns: Option<u64>, batch: &mut Batch) {
        self.events.begin_round();
        self.take_events();
        self.deleted.clear();
        for (ifindex, gone) in self.events.take_departed() {
            batch.departed.push(DepartedDevice { netns, ifindex, gone });
            if gone == Gone::Deleted {
                self.deleted.insert(ifindex);
            }
        }
    }

    pub(super) fn read(&mut self, nics: &[&Nic], batch: &mut Batch) -> Result<(), ReaderError> {
        let read = self.read_all(nics, batch);
        self.read_short_lived(nics, batch);
        self.read.swap(0, 1);
        self.read[0] =
            nics.iter().filter_map(|nic| batch.taps.get(*nic)).map(|reading| reading.ifindex).collect();
        read
    }

    pub(super) fn take_lost(&mut self) -> u64 {
        mem::take(&mut self.lost)
    }

    pub(super) fn last_words(&mut self, nics: &[&Nic], leaving: &Leaving, batch: &mut Batch) {
        self.read_the_deleted(nics, leaving, batch);
        if let Err(error) = self.read_the_living(nics, leaving, batch) {
            tracing::warn!("last counters: {error}");
        }
        // One may have gone in between.
        self.read_the_deleted(nics, leaving, batch);
    }

    fn read_all(&mut self, nics: &[&Nic], batch: &mut Batch) -> Result<(), ReaderError> {
        // By the name first: the counters then are of the device that had it, whatever happens to the name meanwhile.
        let found = self.links.find(nics.iter().copied())?.into_iter();
        let mut missing: HashMap<_, _> =
            found.map(|(ifindex, nic)| (ifindex, (nic, self.links.kind_of(&nic.tap)))).collect();
        for _ in 0..DUMPS {
            if missing.is_empty() {
                break;
            }
            let dump = self.links.stats(|ifindex, stats| {
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
    fn read_short_lived(&mut self, nics: &[&Nic], batch: &mut Batch) {
        self.take_events();
        for nic in nics {
            if !batch.taps.contains_key(*nic)
                && let Some(reading) = self.events.last_counters(&nic.tap)
                && !self.read.iter().any(|read| read.contains(&reading.ifindex))
            {
                batch.taps.insert((*nic).clone(), reading);
            }
        }
    }

    fn read_the_deleted(&mut self, nics: &[&Nic], leaving: &Leaving, batch: &mut Batch) {
        self.take_events();
        for nic in nics {
            if let Some(reading) = self.events.last_counters(&nic.tap)
                && leaving.ifindexes.get(*nic) == Some(&reading.ifindex)
                && (!batch.taps.contains_key(*nic) || self.deleted.contains(&reading.ifindex))
            {
                batch.gone.extend(self.events.gone(&nic.tap).map(|gone| ((*nic).clone(), gone)));
                batch.taps.insert((*nic).clone(), reading);
            }
        }
    }

    fn take_events(&mut self) {
        match self.events.take() {
            Ok(false) => {}
            Ok(true) => {
                self.lost += 1;
                tracing::warn!("too many devices changed at once: some last counters are lost");
            }
            Err(error) => tracing::warn!("cannot listen for changes of devices: {error}"),
        }
    }

    /// A device may outlive its VM.
    fn read_the_living(
        &mut self,
        nics: &[&Nic],
        leaving: &Leaving,
        batch: &mut Batch,
    ) -> Result<(), ReaderError> {
        let unread: Vec<_> = nics.iter().filter(|nic| !batch.taps.contains_key(**nic)).collect();
        let mut living = HashMap::new();
        for nic in unread {
            let Some(&ifindex) = leaving.ifindexes.get(*nic) else { continue };
            if self.links.index_of(&nic.tap)? == Some(ifindex) {
                living.insert(ifindex, ((*nic).clone(), self.links.kind_of(&nic.tap)));
            }
        }
        if living.is_empty() {
            return Ok(());
        }
        self.links.stats(|ifindex, stats| {
            if let Some((nic, kind)) = living.remove(&ifindex) {
                batch.taps.insert(nic, TapReading { ifindex, source: NicSource::Netlink, kind, stats });
            }
        })?;
        Ok(())
    }
}
