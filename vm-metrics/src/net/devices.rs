//! The devices of one network namespace: requests about them, and events of them.

use std::collections::HashSet;
use std::mem;

use super::NetError;
use super::rtnetlink::{Events, Links, Scope};
use crate::model::DeviceExit;

/// Two sockets in one namespace, which all readers share.
#[derive(Debug)]
pub(crate) struct Devices {
    pub(crate) links: Links,
    pub(crate) events: Events,
    /// The devices that have gone since the tick before, by index.
    exits: Vec<(u32, DeviceExit)>,
    /// Those of them that were deleted. Their index now means another device.
    deleted: HashSet<u32>,
    /// How often events were lost since the last call of `take_lost`.
    lost: u64,
}

impl Devices {
    /// In the namespace of this thread.
    pub(crate) fn open(scope: Scope) -> Result<Self, NetError> {
        let failed = |source| NetError::Netlink { operation: "listen for changes", source };
        let (links, events) = (Links::open()?, Events::open(scope).map_err(failed)?);
        Ok(Self { links, events, exits: Vec::new(), deleted: HashSet::new(), lost: 0 })
    }

    /// Takes the events since the last tick. Names are resolved anew after it.
    pub(super) fn begin_tick(&mut self) {
        self.links.begin_tick();
        self.events.begin_round();
        self.take_events();
        self.exits = self.events.take_exits();
        let deleted = self.exits.iter().filter(|(_, exit)| *exit == DeviceExit::Deleted);
        self.deleted = deleted.map(|(ifindex, _)| *ifindex).collect();
    }

    pub(crate) fn take_events(&mut self) {
        match self.events.take() {
            Ok(false) => {}
            Ok(true) => {
                self.lost += 1;
                tracing::debug!("too many devices changed at once: some last counters are lost");
            }
            Err(error) => tracing::warn!("cannot listen for changes of devices: {error}"),
        }
    }

    pub(crate) fn exits(&self) -> &[(u32, DeviceExit)] {
        &self.exits
    }

    /// The indexes of devices that were deleted before this tick.
    pub(crate) fn deleted(&self) -> &HashSet<u32> {
        &self.deleted
    }

    pub(crate) fn take_lost(&mut self) -> u64 {
        mem::take(&mut self.lost)
    }
}
