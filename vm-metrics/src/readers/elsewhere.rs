//! What a reader keeps for each network namespace, other than its own, in which VMs have TAPs.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use super::{ReadReport, ReaderError};
use crate::host::Host;
use crate::model::{FIRST_NUMBER, Nic, VmSet};
use crate::netns::Namespace;

/// A namespace that could not be opened is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);

/// One `T` per namespace. Whoever holds a namespace keeps its devices alive, so it is let go of in the tick in which the
/// last of its VMs has ended.
#[derive(Debug)]
pub(super) struct Elsewhere<T> {
    host: Host,
    known: HashMap<u64, Known<T>>,
    opened: u64,
}

#[derive(Debug)]
struct Known<T> {
    is_wanted: bool,
    state: Result<T, Refusal>,
}

#[derive(Debug)]
struct Refusal {
    problem: String,
    errno: Option<i32>,
    retry_at: Instant,
}

/// What a namespace is made with.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) namespace: Namespace,
    /// Tells it from any other that this reader has opened.
    pub(super) number: u64,
}

impl<T> Elsewhere<T> {
    pub(super) fn new(host: &Host) -> Self {
        Self { host: host.clone(), known: HashMap::new(), opened: 0 }
    }

    /// Opens the namespaces that are new in this tick.
    pub(super) fn follow(
        &mut self,
        vms: &VmSet,
        ended: &HashSet<u32>,
        report: &mut ReadReport,
        mut open: impl FnMut(Opened) -> Result<T, io::Error>,
    ) {
        for known in self.known.values_mut() {
            known.is_wanted = false;
        }
        for (netns, mut pids) in vms.foreign_netns() {
            // A source may list a VM also when it has ended.
            if !pids.is_empty() && pids.iter().all(|pid| ended.contains(pid)) {
                continue;
            }
            pids.retain(|pid| !ended.contains(pid));
            if let Some(known) = self.known.get_mut(&netns) {
                known.is_wanted = true;
            }
            let rests = |known: &Known<T>| {
                known.state.as_ref().err().is_none_or(|refusal| Instant::now() < refusal.retry_at)
            };
            if !self.known.get(&netns).is_some_and(rests) {
                self.opened += 1;
                let number = FIRST_NUMBER + self.opened;
                let opened = Namespace::find(&self.host, netns, &pids)
                    .and_then(|namespace| open(Opened { namespace, number }));
                self.known.insert(netns, Known { is_wanted: true, state: opened.map_err(Refusal::new) });
            }
            if let Some(Err(refusal)) = self.known.get(&netns).map(|known| &known.state) {
                report.error(ReaderError::Namespace {
                    netns,
                    problem: refusal.problem.clone(),
                    errno: refusal.errno,
                });
            }
        }
    }

    /// Those that are open, by inode.
    pub(super) fn open(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        self.known.iter_mut().filter_map(|(netns, known)| Some((*netns, known.state.as_mut().ok()?)))
    }

    /// Whether there are some that are not.
    #[cfg(feature = "ebpf")]
    pub(super) fn has_refused(&self) -> bool {
        self.known.values().any(|known| known.state.is_err())
    }

    pub(super) fn get_mut(&mut self, netns: u64) -> Option<&mut T> {
        self.known.get_mut(&netns)?.state.as_mut().ok()
    }

    /// Lets go of those in which no VM has a TAP any more. To be called when the last words have been said.
    /// `close` says no for one that has to wait for the next tick.
    pub(super) fn release(&mut self, mut close: impl FnMut(&mut T) -> bool) {
        self.known.retain(|_, known| known.is_wanted || !known.state.as_mut().map_or(true, &mut close));
    }
}

impl Refusal {
    fn new(error: io::Error) -> Self {
        Self { problem: error.to_string(), errno: error.raw_os_error(), retry_at: Instant::now() + RETRY }
    }
}

/// The NICs of some VMs, by the inode of the namespace they are in; `None` is this process's own.
pub(super) fn by_netns<'v>(nics: impl IntoIterator<Item = &'v Nic>) -> HashMap<Option<u64>, Vec<&'v Nic>> {
    let mut sorted: HashMap<_, Vec<_>> = HashMap::new();
    for nic in nics {
        sorted.entry(nic.netns).or_default().push(nic);
    }
    sorted
}
