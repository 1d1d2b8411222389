//! The devices of one network namespace: requests about them, and events of them.

use std::collections::HashSet;
use std::mem;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::NetError;
use super::rtnetlink::{Events, Links, Scope};
use crate::model::DeviceExit;

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
        let (exits, deleted) = Default::default();
        let mut devices =
            Self { links: Links::open()?, events: None, scope, refusal: None, exits, deleted, lost: 0 };
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
        Some(NetError::Netlink { operation, source: errno.into() })
    }

    /// Takes the events since the last tick. Names are resolved anew after it.
    pub(super) fn begin_tick(&mut self) {
        self.links.begin_tick();
        self.events.iter_mut().for_each(Events::begin_round);
        self.take_events();
        self.exits = self.events.as_mut().map(Events::take_exits).unwrap_or_default();
        let deleted = self.exits.iter().filter(|(_, exit)| *exit == DeviceExit::Deleted);
        self.deleted = deleted.map(|(ifindex, _)| *ifindex).collect();
    }

    pub(crate) fn take_events(&mut self) {
        match self.events.as_mut().map_or(Ok(false), Events::take) {
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
        devices.begin_tick();
        assert!(devices.problem().is_some() && !devices.is_listening_due());
    }
}
