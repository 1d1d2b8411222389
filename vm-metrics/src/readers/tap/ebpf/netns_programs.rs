//! The TAPs of one network namespace, with as many loads of the programs as it takes to give each a slot.
//!
//! Interface indexes are those of a namespace, and the programs go by them: so each has loads of its own. In the
//! daemon's there is one, of the configured size; elsewhere they are made as TAPs come, small ones first.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::drops::FollowedTaps;
use super::error::{LoadError, errno_of};
use super::options::AttachMethod;
use super::program_set::{Changes, Present, ProgramSet};
use super::programs::load::{Loader, Size};
use super::programs::pins::{LoadId, Pins};
use crate::model::Tenant;
use crate::model::{Batch, EbpfReading, Nic};
use crate::net::NetError;
use crate::net::devices::Devices;
use crate::net::netns::Namespace;
use crate::net::rtnetlink::Links;
use crate::readers::{ReadReport, ReaderError};

/// Slots of the first load elsewhere; each further one has twice as many.
const FIRST_NICS: u32 = 4;

/// A namespace in which nothing could be loaded is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);

pub(crate) struct NetnsPrograms {
    /// `None`: the one that the daemon is in.
    namespace: Option<Arc<Namespace>>,
    way: AttachMethod,
    /// Identifies the namespace among pins, and that of the daemon.
    netns: u64,
    daemon: u64,
    pin_dir: Option<PathBuf>,
    max_nics: u32,
    instances: Vec<ProgramSet>,
    is_open: bool,
    refused: Option<(Instant, LoadError)>,
}

/// The TAPs of one tick.
pub(crate) struct AttachPlan<'v> {
    /// Of each load.
    shares: Vec<(Present<'v>, Changes)>,
    /// Those that no load has room for.
    homeless: Present<'v>,
}

impl AttachPlan<'_> {
    /// Whose TAPs have the programs first.
    pub(crate) fn take_turns(&mut self, tenant: impl Fn(&Nic) -> Tenant, turn: usize) {
        for (_, changes) in &mut self.shares {
            changes.take_turns(&tenant, turn);
        }
    }
}

/// How the loads are made.
pub(crate) struct AttachOptions {
    pub(crate) way: AttachMethod,
    pub(crate) max_nics: u32,
    pub(crate) pin_dir: Option<PathBuf>,
    /// The namespace that the daemon is in, as pins name it.
    pub(crate) daemon: u64,
}

impl NetnsPrograms {
    /// With pins, takes over what the daemon before this one has left.
    pub(crate) fn own(
        loader: &mut Loader,
        pins: Option<Pins>,
        links: &Links,
        terms: &AttachOptions,
    ) -> Result<Self, LoadError> {
        let mut place = Self::new(None, 0, terms);
        let size = Size::of_own_namespace(terms.max_nics);
        let instance = ProgramSet::new(loader, size, terms.way, pins, links, None)?;
        if instance.slots() != terms.max_nics as usize {
            let slots = instance.slots();
            tracing::warn!(
                "max_nics stays {slots} as pinned: `vm-metrics detach` makes {} count",
                terms.max_nics
            );
        }
        place.instances.push(instance);
        place.is_open = true;
        Ok(place)
    }

    /// Loads nothing yet: the first TAP does. A kernel that gives no cookie has the namespace told by its inode.
    pub(crate) fn elsewhere(namespace: Arc<Namespace>, cookie: Option<u64>, terms: &AttachOptions) -> Self {
        let netns = cookie.unwrap_or(namespace.inode());
        Self::new(Some(namespace), netns, terms)
    }

    fn new(namespace: Option<Arc<Namespace>>, netns: u64, terms: &AttachOptions) -> Self {
        Self {
            namespace,
            way: terms.way,
            netns,
            daemon: terms.daemon,
            pin_dir: terms.pin_dir.clone(),
            max_nics: terms.max_nics,
            instances: Vec::new(),
            is_open: false,
            refused: None,
        }
    }

    /// Takes over what a daemon before this one has left here.
    pub(crate) fn open(&mut self, loader: &mut Loader, links: &Links, budget: &mut Budget) {
        if self.is_open || self.rests() {
            return;
        }
        loop {
            let load = self.next_load();
            let opened = match self.is_pinned(load) {
                Ok(false) => {
                    self.is_open = true;
                    return;
                }
                Ok(true) => budget.spend(|| self.load(loader, links, FIRST_NICS, load)),
                Err(error) => Some(Err(error)),
            };
            match opened {
                Some(Ok(())) => {}
                None => return,
                Some(Err(error)) => {
                    self.refused = Some((Instant::now() + RETRY, error));
                    return;
                }
            }
        }
    }

    /// Which TAPs there are, and who takes care of which; takes the programs off those that are nobody's any more.
    /// What has the index of a deleted device is another one, and what a reader before this one has read is there.
    pub(crate) fn begin<'v>(
        &mut self,
        nics: &[&'v Nic],
        devices: &mut Devices,
        is_read: impl Fn(&Nic) -> bool,
        budget: &mut Budget,
        report: &mut ReadReport,
    ) -> Result<AttachPlan<'v>, ReaderError> {
        let present = devices.links.find(nics.iter().copied(), is_read)?;
        let (shares, homeless) = self.share(present);
        let Self { instances, namespace, .. } = self;
        let (links, deleted) = (&devices.links, devices.deleted());
        let changes = instances
            .iter_mut()
            .zip(&shares)
            .map(|(instance, share)| instance.changes(share, deleted, links));
        let changes: Vec<_> = changes.collect();
        if changes.iter().any(Changes::have_gone) {
            let detach = || {
                for (instance, changes) in instances.iter_mut().zip(&changes) {
                    instance.detach(changes, budget, report);
                }
            };
            if let Err(error) = inside(namespace.as_deref(), detach) {
                report.error(NetError::Netlink { operation: "take programs off", source: error }.into());
            }
        }
        Ok(AttachPlan { shares: shares.into_iter().zip(changes).collect(), homeless })
    }

    /// Each load has the TAPs that it counts or could not attach to, and new ones as long as it has room.
    fn share<'v>(&self, present: Present<'v>) -> (Vec<Present<'v>>, Present<'v>) {
        let mut shares: Vec<Present> = self.instances.iter().map(|_| HashMap::new()).collect();
        let mut room: Vec<usize> = self.instances.iter().map(ProgramSet::room).collect();
        let mut homeless = Present::new();
        for (ifindex, nic) in present {
            let known = self.instances.iter().position(|instance| instance.knows(ifindex));
            let home = known.or_else(|| {
                let free = room.iter_mut().enumerate().find(|(_, room)| **room > 0);
                free.map(|(at, room)| {
                    *room -= 1;
                    at
                })
            });
            // What cannot be given more room is for the last one to refuse.
            match home.or_else(|| self.is_full().then(|| self.instances.len() - 1)) {
                Some(at) => shares[at].insert(ifindex, nic),
                None => homeless.insert(ifindex, nic),
            };
        }
        (shares, homeless)
    }

    fn is_full(&self) -> bool {
        let slots: usize = self.instances.iter().map(ProgramSet::slots).sum();
        !self.instances.is_empty() && (self.namespace.is_none() || slots >= self.max_nics as usize)
    }

    /// The TAPs whose drops are to be counted: those of this tick, as far as it is known, and all with programs on them.
    pub(crate) fn followed<'a>(&'a self, round: Option<&AttachPlan<'a>>) -> Vec<FollowedTaps<'a>> {
        if !self.is_open {
            return Vec::new();
        }
        let mut followed = HashMap::new();
        for (ifindex, nic) in self.instances.iter().flat_map(ProgramSet::taps) {
            followed.insert(ifindex, (nic, false, true));
        }
        if let Some(round) = round {
            let present = round.shares.iter().map(|(share, _)| share).chain([&round.homeless]).flatten();
            for (&ifindex, &nic) in present {
                followed.entry(ifindex).or_insert((nic, true, false)).1 = true;
            }
        }
        let followed = followed.into_iter().map(|(ifindex, (nic, wanted, counts))| FollowedTaps {
            ifindex,
            nic,
            counts,
            wanted,
            namespace: self.netns,
        });
        followed.collect()
    }

    /// Attaches to so many of the TAPs that are new, within the time there is. True when there may be more of them.
    pub(crate) fn attach(
        &mut self,
        round: &AttachPlan<'_>,
        links: &mut Links,
        budget: &mut Budget,
        at_most: usize,
    ) -> bool {
        if !round.shares.iter().any(|(_, changes)| changes.have_come()) || budget.is_spent() {
            return false;
        }
        let Self { instances, namespace, .. } = self;
        let attach = || {
            let mut left = at_most;
            for (instance, (_, changes)) in instances.iter_mut().zip(&round.shares) {
                left -= instance.attach(changes, links, budget, left);
            }
            left == 0
        };
        inside(namespace.as_deref(), attach).unwrap_or_else(|error| {
            self.refused = Some((Instant::now() + RETRY, LoadError::Enter(error)));
            false
        })
    }

    /// One more load, for the TAPs that have no place.
    pub(crate) fn make_room(
        &mut self,
        round: &mut AttachPlan<'_>,
        loader: &mut Loader,
        links: &Links,
        budget: &mut Budget,
    ) {
        if round.homeless.is_empty() || !self.is_open || self.rests() {
            return;
        }
        let twice = self.instances.last().map_or(FIRST_NICS as usize, |last| 2 * last.slots());
        let slots: usize = self.instances.iter().map(ProgramSet::slots).sum();
        let left = (self.max_nics as usize).saturating_sub(slots);
        let nics = round.homeless.len().next_power_of_two().max(twice).min(left);
        let load = self.next_load();
        let made = budget.spend(|| self.load(loader, links, u32::try_from(nics).unwrap_or(FIRST_NICS), load));
        match made {
            None => {}
            Some(Ok(())) => {
                let homeless = std::mem::take(&mut round.homeless);
                if let Some(last) = self.instances.last_mut() {
                    let changes = last.changes(&homeless, &HashSet::new(), links);
                    round.shares.push((homeless, changes));
                }
            }
            Some(Err(error)) => self.refused = Some((Instant::now() + RETRY, error)),
        }
    }

    /// Whether a daemon before this one has left a load.
    fn is_pinned(&self, load: LoadId) -> Result<bool, LoadError> {
        Ok(self.pin_dir.as_ref().map_or(Ok(false), |pin_dir| load.is_pinned(pin_dir))?)
    }

    fn next_load(&self) -> LoadId {
        LoadId { netns: self.netns, of: Some(self.daemon), index: self.instances.len() }
    }

    /// With pins, what a daemon before this one has left goes on in it.
    fn load(&mut self, loader: &mut Loader, links: &Links, nics: u32, load: LoadId) -> Result<(), LoadError> {
        let was_pinned = self.is_pinned(load)?;
        let pins = self.pin_dir.as_ref().map(|dir| Pins::open(dir, load, false)).transpose()?;
        let Self { namespace, way, .. } = self;
        let size = Size::of_other_namespace(nics);
        let netns = namespace.as_deref().map(Namespace::inode);
        let new = || ProgramSet::new(loader, size, *way, pins, links, netns);
        match inside(namespace.as_deref(), new).map_err(LoadError::Enter).flatten() {
            Ok(instance) => self.instances.push(instance),
            Err(error) => {
                // Half a load is of no use to anybody.
                if let Some(pin_dir) = self.pin_dir.as_ref().filter(|_| !was_pinned) {
                    load.discard(pin_dir)?;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Reads the counters, and puts back programs that somebody has taken off.
    pub(crate) fn read(&mut self, round: &AttachPlan<'_>, batch: &mut Batch, report: &mut ReadReport) {
        let Self { instances, namespace, .. } = self;
        let shares = instances.iter_mut().zip(&round.shares);
        let blind: Vec<_> =
            shares.map(|(instance, (share, _))| instance.read(share, batch, report)).collect();
        if blind.iter().any(|blind| !blind.is_empty()) {
            let attach = || {
                for (instance, blind) in instances.iter_mut().zip(&blind) {
                    instance.attach_again(blind, report);
                }
            };
            if let Err(source) = inside(namespace.as_deref(), attach) {
                report.error(NetError::Netlink { operation: "put programs back", source }.into());
            }
        }
        if !round.homeless.is_empty() {
            match &self.refused {
                Some((_, error)) if self.rests() => report.error(ReaderError::Device {
                    device: self.name(),
                    problem: error.in_one_line(),
                    errno: errno_of(error),
                }),
                _ => report.waiting += round.homeless.len(),
            }
        }
    }

    fn name(&self) -> String {
        self.namespace.as_ref().map_or_else(String::new, |namespace| format!("net:[{}]", namespace.inode()))
    }

    fn rests(&self) -> bool {
        self.refused.as_ref().is_some_and(|(retry_at, _)| Instant::now() < *retry_at)
    }

    /// What a TAP had counted that is gone with its device, or still there but no VM's.
    pub(crate) fn read_final(&self, nic: &Nic, ifindex: u32) -> Option<EbpfReading> {
        self.instances.iter().find_map(|instance| instance.read_final(nic, ifindex))
    }

    /// Takes all programs off, for good: no VM is here any more. False when there was not the time for all.
    pub(crate) fn close(&mut self, budget: &mut Budget) -> bool {
        let Self { instances, namespace, .. } = self;
        let close = || instances.iter_mut().all(|instance| instance.close(budget));
        inside(namespace.as_deref(), close).unwrap_or_else(|error| {
            tracing::warn!("cannot enter {} to take the programs off: {error}", self.name());
            true
        })
    }

    /// Whether what a daemon before this one has left here is taken over.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }
}

/// Filters are taken off by a message to the namespace of the thread: in another one it would mean another device.
impl Drop for NetnsPrograms {
    fn drop(&mut self) {
        let Self { instances, namespace, .. } = self;
        let left = inside(namespace.as_deref(), || instances.clear());
        if left.is_err() {
            instances.drain(..).for_each(ProgramSet::forget);
        }
    }
}

/// On this thread, or on one that is in the namespace.
fn inside<T: Send>(namespace: Option<&Namespace>, work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    match namespace {
        None => Ok(work()),
        Some(namespace) => namespace.within(work),
    }
}
