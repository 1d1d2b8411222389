//! The programs of one network namespace, in as many sets as its TAPs need.
//!
//! Interface indexes are those of a namespace, and the programs go by them. So each namespace has sets of its own. In the
//! daemon's there is one, of the configured size; elsewhere they are loaded as TAPs come, small ones first.

mod loading;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::drops::FollowedTap;
use super::error::{LoadError, errno_of};
use super::options::AttachMethod;
use super::present::Present;
use super::program_set::{Changes, ProgramSet};
use super::programs::load::{Loader, Size};
use super::programs::pins::Pins;
use crate::model::{Batch, DeviceId, EbpfReading, Nic, Tenant};
use crate::net::NetError;
use crate::net::devices::Devices;
use crate::net::netns::Namespace;
use crate::net::rtnetlink::Links;
use crate::readers::{ReadReport, ReaderError};

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
    sets: Vec<ProgramSet>,
    is_open: bool,
    refused: Option<(Instant, LoadError)>,
}

/// The TAPs of one tick.
pub(crate) struct AttachPlan<'v> {
    /// Of each load.
    shares: Vec<(Present<'v>, Changes)>,
    /// Those that no load has room for.
    unassigned: Present<'v>,
}

impl AttachPlan<'_> {
    /// Which TAPs of a user have the programs first.
    pub(crate) fn busiest_first(&mut self, packets: impl Fn(usize) -> u64) {
        self.shares.iter_mut().for_each(|(_, changes)| changes.busiest_first(&packets));
    }

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
        options: &AttachOptions,
    ) -> Result<Self, LoadError> {
        let mut programs = Self::new(None, 0, options);
        let size = Size::of_own_namespace(options.max_nics);
        let set = ProgramSet::new(loader, size, options.way, pins, links)?;
        if set.slots() != options.max_nics as usize {
            let slots = set.slots();
            tracing::warn!(
                "max_nics stays {slots} as pinned: `vm-metrics detach` makes {} count",
                options.max_nics
            );
        }
        programs.sets.push(set);
        programs.is_open = true;
        Ok(programs)
    }

    /// Loads nothing yet: the first TAP does. A kernel that gives no cookie has the namespace told by its inode.
    pub(crate) fn foreign(namespace: Arc<Namespace>, cookie: Option<u64>, options: &AttachOptions) -> Self {
        let netns = cookie.unwrap_or(namespace.inode());
        Self::new(Some(namespace), netns, options)
    }

    fn new(namespace: Option<Arc<Namespace>>, netns: u64, options: &AttachOptions) -> Self {
        Self {
            namespace,
            way: options.way,
            netns,
            daemon: options.daemon,
            pin_dir: options.pin_dir.clone(),
            max_nics: options.max_nics,
            sets: Vec::new(),
            is_open: false,
            refused: None,
        }
    }

    /// Which TAPs there are, and who takes care of which; takes the programs off those that are nobody's any more.
    /// What has the index of a deleted device is another one.
    pub(crate) fn begin<'v>(
        &mut self,
        present: Present<'v>,
        devices: &Devices,
        budget: &mut Budget,
        report: &mut ReadReport,
    ) -> AttachPlan<'v> {
        let (shares, unassigned) = self.share(present);
        let Self { sets, namespace, .. } = self;
        let (links, deleted) = (&devices.links, devices.deleted());
        let changes = sets.iter_mut().zip(&shares).map(|(set, share)| set.changes(share, deleted, links));
        let changes: Vec<_> = changes.collect();
        if changes.iter().any(Changes::have_gone) {
            let detach = || {
                for (set, changes) in sets.iter_mut().zip(&changes) {
                    set.detach(changes, budget, report);
                }
            };
            if let Err(error) = inside(namespace.as_deref(), detach) {
                report.error(
                    NetError::Netlink { operation: "take programs off", source: Arc::new(error) }.into(),
                );
            }
        }
        AttachPlan { shares: shares.into_iter().zip(changes).collect(), unassigned }
    }

    /// Each load has the TAPs that it counts or could not attach to, and new ones as long as it has room.
    fn share<'v>(&self, present: Present<'v>) -> (Vec<Present<'v>>, Present<'v>) {
        let mut shares: Vec<Present> = self.sets.iter().map(|_| HashMap::new()).collect();
        let mut room: Vec<usize> = self.sets.iter().map(ProgramSet::room).collect();
        let mut unassigned = Present::new();
        for (ifindex, tap) in present {
            let known = self.sets.iter().position(|set| set.knows(ifindex));
            let home = known.or_else(|| {
                let free = room.iter_mut().enumerate().find(|(_, room)| **room > 0);
                free.map(|(at, room)| {
                    *room -= 1;
                    at
                })
            });
            // What cannot be given more room is for the last one to refuse.
            match home.or_else(|| self.is_full().then(|| self.sets.len() - 1)) {
                Some(at) => shares[at].insert(ifindex, tap),
                None => unassigned.insert(ifindex, tap),
            };
        }
        (shares, unassigned)
    }

    fn is_full(&self) -> bool {
        let slots: usize = self.sets.iter().map(ProgramSet::slots).sum();
        !self.sets.is_empty() && (self.namespace.is_none() || slots >= self.max_nics as usize)
    }

    /// The TAPs whose drops are to be counted: those of this tick, as far as it is known, and all with programs on them.
    pub(crate) fn followed(&self, plan: Option<&AttachPlan<'_>>) -> Vec<FollowedTap> {
        if !self.is_open {
            return Vec::new();
        }
        let netns = self.namespace.as_deref().map(Namespace::inode);
        let tap = |ifindex, device, counts| FollowedTap { netns, ifindex, device, counts, wanted: false };
        let counted = self.sets.iter().flat_map(ProgramSet::taps);
        let mut followed: HashMap<u32, FollowedTap> =
            counted.map(|(ifindex, device)| (ifindex, tap(ifindex, device, true))).collect();
        if let Some(plan) = plan {
            let present = plan.shares.iter().map(|(share, _)| share).chain([&plan.unassigned]).flatten();
            for (&ifindex, present) in present {
                let device = Some(present.device);
                followed.entry(ifindex).or_insert_with(|| tap(ifindex, device, false)).wanted = true;
            }
        }
        followed.into_values().collect()
    }

    /// Attaches to so many of the TAPs that are new, within the time there is. True when there may be more of them.
    pub(crate) fn attach(
        &mut self,
        plan: &AttachPlan<'_>,
        links: &mut Links,
        budget: &mut Budget,
        at_most: usize,
    ) -> bool {
        if !plan.shares.iter().any(|(_, changes)| changes.have_come()) || budget.is_spent() {
            return false;
        }
        let Self { sets, namespace, .. } = self;
        let attach = || {
            let mut left = at_most;
            for (set, (_, changes)) in sets.iter_mut().zip(&plan.shares) {
                left -= set.attach(changes, links, budget, left);
            }
            left == 0
        };
        inside(namespace.as_deref(), attach).unwrap_or_else(|error| {
            self.refused = Some((Instant::now() + RETRY, LoadError::Enter(error)));
            false
        })
    }

    /// Reads the counters, and puts back programs that somebody has taken off.
    pub(crate) fn read(&mut self, plan: &AttachPlan<'_>, batch: &mut Batch, report: &mut ReadReport) {
        let Self { sets, namespace, .. } = self;
        let shares = sets.iter_mut().zip(&plan.shares);
        let bypassed: Vec<_> = shares.map(|(set, (share, _))| set.read(share, batch, report)).collect();
        if bypassed.iter().any(|bypassed| !bypassed.is_empty()) {
            let attach = || {
                for (set, bypassed) in sets.iter_mut().zip(&bypassed) {
                    set.reattach(bypassed, report);
                }
            };
            if let Err(source) = inside(namespace.as_deref(), attach) {
                report.error(
                    NetError::Netlink { operation: "put programs back", source: Arc::new(source) }.into(),
                );
            }
        }
        if !plan.unassigned.is_empty() {
            match &self.refused {
                Some((_, error)) if self.rests() => report.error(ReaderError::Device {
                    device: self.name(),
                    problem: error.in_one_line(),
                    errno: errno_of(error),
                }),
                _ => report.waiting += plan.unassigned.len(),
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
    pub(crate) fn read_final(&self, device: DeviceId) -> Option<EbpfReading> {
        self.sets.iter().find_map(|set| set.read_final(device))
    }

    /// Takes all programs off, for good: no VM is here any more. False when there was not the time for all.
    pub(crate) fn close(&mut self, budget: &mut Budget) -> bool {
        let Self { sets, namespace, .. } = self;
        let close = || sets.iter_mut().all(|set| set.close(budget));
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
        let Self { sets, namespace, .. } = self;
        let left = inside(namespace.as_deref(), || sets.clear());
        if left.is_err() {
            sets.drain(..).for_each(ProgramSet::forget);
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
