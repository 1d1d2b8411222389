//! State per network namespace, other than the reader's own, in which VMs have TAPs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use super::NetError;
use crate::host::Host;
use crate::model::{Excess, FIRST_NUMBER, Nic, Trust, VmSet, fair_share};
use crate::model::{Tenant, in_turns};
use crate::net::netns::Namespace;
use crate::patient::{Job, Patient};

/// A namespace that could not be opened is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);

/// Namespaces of all users together who are not trusted.
const MAX_OF_OTHERS: u64 = 1024;

/// A namespace takes up to this many files of each reader, and what is left is for the others.
const FILES_EACH: u64 = 16;

/// How long a process may take to show its namespace.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long a tick opens namespaces of users who are not trusted. At least one is opened in any case.
const TIME_FOR_OTHERS: Duration = Duration::from_millis(50);

/// A VM that has no TAP in the namespace any more may be making it anew. If its process lives, it has this time: longer
/// than from one look at its descriptors to the next.
const KEEP: Duration = Duration::from_secs(40);

/// What such a namespace is counted as, where it is left out.
const RESOURCE: &str = "namespaces";

/// One `T` per namespace. Whoever holds a namespace keeps its devices alive, so it is let go of in the tick in which the
/// last of its VMs has ended.
#[derive(Debug)]
pub(crate) struct ForeignNamespaces<T> {
    host: Host,
    trust: Trust,
    /// Namespaces of all users together who are not trusted.
    max_of_others: u64,
    known: HashMap<u64, Known<T>>,
    /// Those that are followed, in the order in which work is done for them.
    order: Vec<u64>,
    turn: usize,
    opened: u64,
    finder: Patient<(Host, u64, Vec<u32>), io::Result<Namespace>>,
}

#[derive(Debug)]
struct Known<T> {
    is_wanted: bool,
    /// When a VM last had a TAP there, and the processes of these VMs.
    had_at: Instant,
    pids: Vec<u32>,
    tenant: Tenant,
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
pub(crate) struct OpenedNamespace {
    pub(crate) namespace: Namespace,
    /// Its inode.
    pub(crate) netns: u64,
    /// Whose VMs are in it.
    pub(crate) tenant: Tenant,
    /// Tells it from any other that this reader has opened.
    pub(crate) number: u64,
}

/// A namespace in which VMs of this tick have TAPs.
#[derive(Debug)]
struct Wanted {
    pids: Vec<u32>,
    tenant: Tenant,
}

/// Namespaces that are left out of a tick, and why.
#[derive(Debug, Default)]
pub(crate) struct FollowReport {
    pub(crate) problems: Vec<NetError>,
    /// Of users with more namespaces than their share.
    pub(crate) overuse: Excess,
}

impl<T> ForeignNamespaces<T> {
    pub(crate) fn new(host: &Host, trust: &Trust) -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self {
            host: host.clone(),
            trust: trust.clone(),
            max_of_others: MAX_OF_OTHERS.min(files / FILES_EACH),
            known: HashMap::new(),
            order: Vec::new(),
            turn: 0,
            opened: 0,
            finder: Patient::new("find-netns", PATIENCE, |(host, netns, pids): (Host, u64, Vec<u32>)| {
                Namespace::find(&host, netns, &pids)
            }),
        }
    }

    /// Opens the namespaces that are new in this tick: all of trusted users, and of others as many as their shares and the
    /// time allow.
    pub(crate) fn follow(
        &mut self,
        vms: &VmSet,
        ended: &HashSet<u32>,
        mut open: impl FnMut(OpenedNamespace) -> Result<T, io::Error>,
    ) -> FollowReport {
        let mut report = FollowReport::default();
        for known in self.known.values_mut() {
            known.is_wanted = false;
        }
        let mut wanted = wanted(vms, ended, &self.trust);
        for (netns, Wanted { pids, .. }) in &wanted {
            if let Some(known) = self.known.get_mut(netns) {
                (known.had_at, known.pids) = (Instant::now(), pids.clone());
            }
        }
        self.keep_for_a_while(vms, ended, &mut wanted);
        self.turn += 1;
        self.order = self.within_shares(&wanted, &mut report.overuse);
        let began = Instant::now();
        let mut opened_of_others = 0;
        for netns in self.order.iter().copied() {
            let Wanted { pids, tenant } = &wanted[&netns];
            if let Some(known) = self.known.get_mut(&netns) {
                (known.is_wanted, known.tenant) = (true, *tenant);
            }
            let rests = |known: &Known<T>| {
                known.state.as_ref().err().is_none_or(|refusal| Instant::now() < refusal.retry_at)
            };
            if !self.known.get(&netns).is_some_and(rests) {
                if let Tenant::Other(uid) = tenant {
                    if opened_of_others > 0 && began.elapsed() > TIME_FOR_OTHERS {
                        report.overuse.add(*uid, RESOURCE, 1);
                        continue;
                    }
                    opened_of_others += 1;
                }
                self.opened += 1;
                let number = FIRST_NUMBER + self.opened;
                let tenant = *tenant;
                let opened = find(&mut self.finder, &self.host, netns, pids, tenant)
                    .and_then(|namespace| open(OpenedNamespace { namespace, netns, tenant, number }));
                let (state, had_at) = (opened.map_err(Refusal::new), Instant::now());
                let known = Known { is_wanted: true, had_at, pids: pids.clone(), tenant, state };
                self.known.insert(netns, known);
            }
            if let Some(Err(refusal)) = self.known.get(&netns).map(|known| &known.state) {
                report.problems.push(NetError::Namespace {
                    netns,
                    problem: refusal.problem.clone(),
                    errno: refusal.errno,
                });
            }
        }
        report
    }

    /// Adds the namespaces in which VMs had TAPs a moment ago.
    fn keep_for_a_while(&self, vms: &VmSet, ended: &HashSet<u32>, wanted: &mut BTreeMap<u64, Wanted>) {
        let mut left = self.known.iter().filter(|(netns, _)| !wanted.contains_key(netns)).peekable();
        if left.peek().is_none() {
            return;
        }
        let living: HashSet<u32> = vms.pids().filter(|pid| !ended.contains(pid)).collect();
        let kept = left.filter_map(|(netns, known)| {
            let pids: Vec<u32> = known.pids.iter().copied().filter(|pid| living.contains(pid)).collect();
            let is_kept = !pids.is_empty() && known.had_at.elapsed() < KEEP;
            is_kept.then_some((*netns, Wanted { pids, tenant: known.tenant }))
        });
        let kept: Vec<_> = kept.collect();
        wanted.extend(kept);
    }

    /// Those that are followed. A user who wants more than a share keeps what is open already.
    fn within_shares(&self, wanted: &BTreeMap<u64, Wanted>, overuse: &mut Excess) -> Vec<u64> {
        let mut users: BTreeMap<Tenant, Vec<u64>> = BTreeMap::new();
        for (netns, Wanted { tenant, .. }) in wanted {
            users.entry(*tenant).or_default().push(*netns);
        }
        let others = users.iter().filter(|(tenant, _)| !tenant.is_trusted());
        let share = fair_share(self.max_of_others, others.map(|(_, namespaces)| namespaces.len() as u64));
        let share = usize::try_from(share).unwrap_or(usize::MAX);
        for (tenant, namespaces) in &mut users {
            if let Tenant::Other(uid) = tenant {
                // Stable: what is open comes first.
                namespaces.sort_by_key(|netns| !self.known.contains_key(netns));
                overuse.add(*uid, RESOURCE, namespaces.len().saturating_sub(share) as u64);
                namespaces.truncate(share);
            }
        }
        let of_user = |(tenant, namespaces): (Tenant, Vec<u64>)| {
            namespaces.into_iter().map(move |netns| (tenant, netns))
        };
        in_turns(users.into_iter().flat_map(of_user), self.turn)
    }

    /// Those that are followed: of trusted users first, then one of each user after the other.
    #[cfg(feature = "ebpf")]
    pub(crate) fn order(&self) -> impl Iterator<Item = u64> {
        self.order.iter().copied()
    }

    /// Whose VMs are in it.
    #[cfg(feature = "ebpf")]
    pub(crate) fn tenant(&self, netns: u64) -> Tenant {
        self.known.get(&netns).map_or(Tenant::Other(None), |known| known.tenant)
    }

    /// Those that are open, by inode.
    pub(crate) fn open(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        self.open_with_tenants().map(|(netns, _, state)| (netns, state))
    }

    /// The same, with the user whose VMs are in each.
    pub(crate) fn open_with_tenants(&mut self) -> impl Iterator<Item = (u64, Tenant, &mut T)> {
        self.known
            .iter_mut()
            .filter_map(|(netns, known)| Some((*netns, known.tenant, known.state.as_mut().ok()?)))
    }

    /// Whether there are some that are not.
    #[cfg(feature = "ebpf")]
    pub(crate) fn has_refused(&self) -> bool {
        self.known.values().any(|known| known.state.is_err())
    }

    pub(crate) fn get_mut(&mut self, netns: u64) -> Option<&mut T> {
        self.known.get_mut(&netns)?.state.as_mut().ok()
    }

    /// Lets go of those in which no VM has a TAP any more. To be called when the last words have been said.
    /// `close` says no for one that has to wait for the next tick.
    pub(crate) fn release(&mut self, mut close: impl FnMut(&mut T) -> bool) {
        self.known.retain(|_, known| known.is_wanted || !known.state.as_mut().map_or(true, &mut close));
    }
}

/// A process may keep whoever opens its namespace waiting: then it is tried again later.
fn find(
    finder: &mut Patient<(Host, u64, Vec<u32>), io::Result<Namespace>>,
    host: &Host,
    netns: u64,
    pids: &[u32],
    tenant: Tenant,
) -> io::Result<Namespace> {
    let job = Job {
        pid: pids.first().copied().unwrap_or_default(),
        uid: tenant.uid(),
        is_trusted: tenant.is_trusted(),
        question: (host.clone(), netns, pids.to_vec()),
    };
    let answer = finder.each(vec![job]).pop().flatten();
    answer.unwrap_or_else(|| Err(io::Error::new(io::ErrorKind::TimedOut, "its processes do not answer")))
}

impl Refusal {
    fn new(error: io::Error) -> Self {
        Self { problem: error.to_string(), errno: error.raw_os_error(), retry_at: Instant::now() + RETRY }
    }
}

/// The namespaces in which VMs have TAPs that have not ended. A trusted user's VM makes it a trusted one's.
fn wanted(vms: &VmSet, ended: &HashSet<u32>, trust: &Trust) -> BTreeMap<u64, Wanted> {
    let mut wanted: BTreeMap<u64, Wanted> = BTreeMap::new();
    // A source may list a VM also when it has ended.
    let has_ended = |pid: Option<u32>| pid.is_some_and(|pid| ended.contains(&pid));
    for vm in vms.vms.iter().filter(|vm| !has_ended(vm.hypervisor_pid)) {
        let tenant = Tenant::of(vm, trust);
        for netns in vm.nics.iter().filter_map(|nic| nic.netns) {
            let known = wanted.entry(netns).or_insert_with(|| Wanted { pids: Vec::new(), tenant });
            known.tenant = known.tenant.min(tenant);
            if known.pids.last() != vm.hypervisor_pid.as_ref() {
                known.pids.extend(vm.hypervisor_pid);
            }
        }
    }
    wanted
}

/// The NICs of some VMs, by the inode of the namespace they are in; `None` is this process's own.
pub(crate) fn by_netns<'v>(nics: impl IntoIterator<Item = &'v Nic>) -> HashMap<Option<u64>, Vec<&'v Nic>> {
    let mut sorted: HashMap<_, Vec<_>> = HashMap::new();
    for nic in nics {
        sorted.entry(nic.netns).or_default().push(nic);
    }
    sorted
}

#[cfg(test)]
mod tests;
