//! The devices of one network namespace: requests about them, and events of them.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;

use super::NetError;
use super::device_table::DeviceTable;
use super::rtnetlink::{Events, Links, Scope};
use crate::model::{Device, DeviceExit, DeviceId, Nic};

/// Two sockets in one namespace, which all readers share.
#[derive(Debug)]
pub(crate) struct Devices {
    pub(crate) links: Links,
    pub(crate) events: Events,
    /// Why the names of this tick are not resolved.
    problem: Option<NetError>,
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
        let failed = |source| NetError::Netlink { operation: "listen for changes", source: Arc::new(source) };
        let (links, events) = (Links::open()?, Events::open(scope).map_err(failed)?);
        let (problem, exits, deleted_now, deleted, lost) = Default::default();
        Ok(Self { links, events, problem, exits, deleted_now, deleted, lost })
    }

    /// Takes the events since the last tick, and returns the devices that have gone.
    pub(super) fn begin_tick(
        &mut self,
        netns: Option<u64>,
        table: &mut DeviceTable,
    ) -> Vec<(DeviceId, DeviceExit)> {
        self.events.begin_round();
        self.take_events(netns, table);
        self.deleted = mem::take(&mut self.deleted_now);
        mem::take(&mut self.exits)
    }

    /// Those of the interfaces whose devices are there, by index.
    pub(super) fn find<'v>(&mut self, nics: &[(usize, &'v Nic)]) -> HashMap<u32, (usize, &'v Nic)> {
        let Self { links, events, .. } = self;
        let found = links.find(nics.iter().copied(), |nic| events.has_appeared(&nic.tap));
        let (found, problem) =
            found.map_or_else(|error| (HashMap::new(), Some(error)), |found| (found, None));
        self.problem = problem;
        found
    }

    /// Why the names of this tick are not resolved.
    pub(crate) fn problem(&self) -> Option<NetError> {
        self.problem.clone()
    }

    pub(crate) fn take_events(&mut self, netns: Option<u64>, table: &mut DeviceTable) {
        match self.events.take() {
            Ok(false) => {}
            Ok(true) => {
                self.lost += 1;
                tracing::debug!("too many devices changed at once: some last counters are lost");
            }
            Err(error) => tracing::warn!("cannot listen for changes of devices: {error}"),
        }
        let Self { links, events, exits, deleted_now, .. } = self;
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
    pub(crate) fn deleted(&self) -> &HashSet<u32> {
        &self.deleted
    }

    pub(crate) fn take_lost(&mut self) -> u64 {
        mem::take(&mut self.lost)
    }
}
