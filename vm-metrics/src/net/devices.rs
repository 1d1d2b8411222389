//! The devices of one network namespace: requests about them, and events of them.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::NetError;
use super::device_table::DeviceTable;
use super::rtnetlink::{Events, Links, Scope};
use crate::model::{Device, DeviceExit, DeviceId, Nic};

/// A socket of events that could not be opened is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);

/// Two sockets in one namespace, which all readers share.
#[derive(Debug)]
pub(crate) struct Devices {
    pub(crate) links: Links,
    /// `None` while the kernel refuses their socket. The devices are read all the same.
    pub(crate) events: Option<Events>,
    scope: Scope,
    /// Why there are no events, and when to try again.
    refusal: Option<(Errno, Instant)>,
    /// Why the names of this tick are not resolved.
    unresolved: Option<NetError>,
    /// The devices that have gone since the tick before, as far as they were known.
    exits: Vec<(DeviceId, DeviceExit)>,
    /// The indexes of the deleted ones.
    deleted_now: HashSet<u32>,
    /// Those that were deleted before this tick. Their index now means another device.
    deleted: HashSet<u32>,
    /// How often events were lost since the last call of `take_lost`.
    lost: u64,
}

impl Devices {
    /// In the namespace of this thread.
    pub(crate) fn open(scope: Scope) -> Result<Self, NetError> {
        let (events, refusal, unresolved, exits, deleted_now, deleted, lost) = Default::default();
        let links = Links::open()?;
        let mut devices =
            Self { links, events, scope, refusal, unresolved, exits, deleted_now, deleted, lost };
        devices.listen();
        Ok(devices)
    }

    /// Opens the socket of events in the namespace of this thread, and notes the refusal.
    pub(super) fn listen(&mut self) {
        match Events::open(self.scope) {
            Ok(events) => (self.events, self.refusal) = (Some(events), None),
            Err(error) => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                self.refusal = Some((errno, Instant::now() + RETRY));
            }
        }
    }

    /// Whether it is time to open the socket of events once more.
    pub(super) fn is_listening_due(&self) -> bool {
        self.refusal.is_some_and(|(_, retry_at)| Instant::now() >= retry_at)
    }

    /// Why no events come.
    pub(super) fn problem(&self) -> Option<NetError> {
        let (errno, _) = self.refusal?;
        let operation = "listen for changes, so counters of deleted devices are missing";
        Some(NetError::Netlink { operation, source: Arc::new(errno.into()) })
    }

    /// Takes the events since the last tick, and returns the devices that have gone.
    pub(super) fn begin_tick(
        &mut self,
        netns: Option<u64>,
        table: &mut DeviceTable,
    ) -> Vec<(DeviceId, DeviceExit)> {
        self.events.iter_mut().for_each(Events::begin_round);
        self.take_events(netns, table);
        self.deleted = mem::take(&mut self.deleted_now);
        mem::take(&mut self.exits)
    }

    /// Those of the interfaces whose devices are there, by index.
    pub(super) fn find<'v>(&mut self, nics: &[(usize, &'v Nic)]) -> HashMap<u32, (usize, &'v Nic)> {
        let Self { links, events, .. } = self;
        let has_appeared = |nic: &Nic| events.as_ref().is_some_and(|events| events.has_appeared(&nic.tap));
        let found = links.find(nics.iter().copied(), has_appeared);
        let (found, unresolved) =
            found.map_or_else(|error| (HashMap::new(), Some(error)), |found| (found, None));
        self.unresolved = unresolved;
        found
    }

    /// Why the names of this tick are not resolved.
    pub(crate) fn unresolved(&self) -> Option<NetError> {
        self.unresolved.clone()
    }

    pub(crate) fn take_events(&mut self, netns: Option<u64>, table: &mut DeviceTable) {
        match self.events.as_mut().map_or(Ok(false), Events::take) {
            Ok(false) => {}
            Ok(true) => {
                self.lost += 1;
                tracing::debug!("too many devices changed at once: some last counters are lost");
            }
            Err(error) => tracing::warn!("cannot listen for changes of devices: {error}"),
        }
        let Self { links, events: Some(events), exits, deleted_now, .. } = self else { return };
        events.identify(|gone| {
            let is_moved = gone.exit != DeviceExit::Deleted;
            if !is_moved {
                deleted_now.insert(gone.ifindex);
            }
            // It may have moved here and there.
            let mut is_here = || links.index_of(&gone.name).is_ok_and(|now| now == Some(gone.ifindex));
            let known = table.exit(netns, gone.ifindex, || is_moved && is_here());
            exits.extend(known.map(|(device, _)| (device.id, gone.exit)));
            let (device, was_read) =
                known.unwrap_or_else(|| (table.new_device(netns, gone.ifindex, gone.kind, None), false));
            (Device { kind: gone.kind, ..device }, was_read)
        });
    }

    /// The indexes of devices that were deleted before this tick.
    #[cfg_attr(not(feature = "ebpf"), expect(dead_code, reason = "only the eBPF reader asks"))]
    pub(crate) fn deleted(&self) -> &HashSet<u32> {
        &self.deleted
    }

    pub(crate) fn take_lost(&mut self) -> u64 {
        mem::take(&mut self.lost)
    }
}

#[cfg(test)]
impl Devices {
    /// Without events, and it is time to open their socket again.
    pub(super) fn unheard() -> Self {
        let mut devices = Self::open(Scope::REFUSED).expect("the links");
        devices.scope = Scope::OWN;
        devices.refusal = devices.refusal.map(|(errno, _)| (errno, Instant::now()));
        devices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_asked_about_without_events() {
        let mut devices = Devices::open(Scope::REFUSED).expect("the links");
        assert_eq!(devices.links.index_of("lo").expect("an answer"), Some(1));
        devices.begin_tick(None, &mut DeviceTable::default());
        assert!(devices.problem().is_some() && !devices.is_listening_due());
    }
}
