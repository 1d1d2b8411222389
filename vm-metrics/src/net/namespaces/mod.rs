//! The network namespaces of VMs, each opened once for all readers.

mod selection;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use super::NetError;
use super::devices::Devices;
use super::events::EventPoller;
use super::netns::Namespace;
use super::rtnetlink::Scope;
use crate::host::Host;
use crate::model::{Excess, FIRST_NUMBER, Nic, Tenant, Trust, VmSet};
use crate::patient::{Job, Patient};
use selection::{Wanted, wanted};

/// A namespace that could not be opened or entered is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);

/// The most namespaces of all users together who are not trusted.
const MAX_OF_OTHERS: u64 = 1024;

/// The most open files of a namespace. The rest of the files is left for others.
const FILES_EACH: u64 = 16;

/// How long a process may take to show its namespace.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long a tick opens namespaces of users who are not trusted. It opens at least one of them.
const TIME_FOR_OTHERS: Duration = Duration::from_millis(50);

/// The name of namespaces among the resources of users.
const RESOURCE: &str = "namespaces";

/// Asks processes for the namespace with an inode.
type Finder = Patient<(Host, u64, Vec<u32>), io::Result<Namespace>>;

/// The daemon's own network namespace, and those in which VMs have TAPs.
///
/// An open namespace keeps its devices alive. So each is closed in the tick in which the last of its VMs has ended.
#[derive(Debug)]
pub struct Namespaces {
    host: Host,
    trust: Trust,
    poller: EventPoller,
    /// Opened by the first reader that asks for it.
    own: Option<Devices>,
    max_of_others: u64,
    foreign: HashMap<u64, ForeignNamespace>,
    /// The namespaces that are followed, in the order in which work is done for them.
    order: Vec<u64>,
    turn: usize,
    opened: u64,
    finder: Finder,
    is_followed: bool,
    /// The namespaces of this tick that users want beyond their shares.
    overuse: Excess,
}

/// A network namespace in which VMs have TAPs.
#[derive(Debug)]
pub(crate) struct ForeignNamespace {
    is_wanted: bool,
    /// When a VM last had a TAP there, and the processes of these VMs.
    used_at: Instant,
    pids: Vec<u32>,
    tenant: Tenant,
    /// Tells it from any other that this process has opened.
    number: u64,
    /// Tells it from any other; `None` before Linux 5.14, and where it was not entered.
    cookie: Option<u64>,
    handle: Option<Arc<Namespace>>,
    devices: Option<Devices>,
    /// Why the namespace has no handle or no devices.
    refusal: Option<Refusal>,
}

#[derive(Debug)]
struct Refusal {
    problem: String,
    errno: Option<i32>,
    retry_at: Instant,
}

/// Namespaces that are left out of a tick, and why.
#[derive(Debug, Default)]
pub(crate) struct FollowReport {
    pub(crate) problems: Vec<NetError>,
    /// The namespaces beyond the shares of users.
    pub(crate) overuse: Excess,
}

impl Namespaces {
    pub(crate) fn new(host: &Host, trust: &Trust, poller: EventPoller) -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self {
            host: host.clone(),
            trust: trust.clone(),
            poller,
            own: None,
            max_of_others: MAX_OF_OTHERS.min(files / FILES_EACH),
            foreign: HashMap::new(),
            order: Vec::new(),
            turn: 0,
            opened: 0,
            finder: Patient::new("find-netns", PATIENCE, |(host, netns, pids): (Host, u64, Vec<u32>)| {
                Namespace::find(&host, netns, &pids)
            }),
            is_followed: false,
            overuse: Excess::default(),
        }
    }

    /// The devices of the daemon's own namespace.
    pub(crate) fn own(&mut self) -> Result<&mut Devices, NetError> {
        match &mut self.own {
            Some(own) => Ok(own),
            own => Ok(own.insert(Devices::open(Scope::OWN)?)),
        }
    }

    /// Opens the namespaces that are new in this tick, and takes the events of all. Only the first call in a tick does.
    ///
    /// Namespaces of trusted users are opened at once. Those of others are opened within their shares, as time allows.
    /// `ended` has to be complete: the readers of processes come first.
    pub(crate) fn follow(&mut self, vms: &VmSet, ended: &HashSet<u32>) -> FollowReport {
        if !self.is_followed {
            self.is_followed = true;
            self.select(vms, ended);
            self.own.iter_mut().for_each(Devices::begin_tick);
            self.foreign
                .values_mut()
                .filter_map(|known| known.devices.as_mut())
                .for_each(Devices::begin_tick);
        }
        let problems = self.order.iter().filter_map(|netns| self.foreign.get(netns)?.problem(*netns));
        FollowReport { problems: problems.collect(), overuse: self.overuse.clone() }
    }

    /// Decides which namespaces this tick follows, and opens them.
    fn select(&mut self, vms: &VmSet, ended: &HashSet<u32>) {
        self.foreign.values_mut().for_each(|known| known.is_wanted = false);
        let mut wanted = wanted(vms, ended, &self.trust);
        for (netns, Wanted { pids, .. }) in &wanted {
            if let Some(known) = self.foreign.get_mut(netns) {
                (known.used_at, known.pids) = (Instant::now(), pids.clone());
            }
        }
        self.keep_for_a_while(vms, ended, &mut wanted);
        self.turn += 1;
        (self.order, self.overuse) = self.within_shares(&wanted);
        self.open_new(&wanted);
    }

    fn open_new(&mut self, wanted: &BTreeMap<u64, Wanted>) {
        let (began, mut opened_of_others) = (Instant::now(), 0);
        for netns in self.order.clone() {
            let Wanted { pids, tenant } = &wanted[&netns];
            let known = self.foreign.get_mut(&netns);
            let is_due = known.as_ref().is_none_or(|known| known.is_due());
            if let Some(known) = known {
                (known.is_wanted, known.tenant) = (true, *tenant);
            }
            if !is_due {
                continue;
            }
            if let Tenant::Other(uid) = tenant {
                if opened_of_others > 0 && began.elapsed() > TIME_FOR_OTHERS {
                    self.overuse.add(*uid, RESOURCE, 1);
                    continue;
                }
                opened_of_others += 1;
            }
            let known = self.foreign.entry(netns).or_insert_with(|| {
                self.opened += 1;
                ForeignNamespace::new(pids, *tenant, FIRST_NUMBER + self.opened)
            });
            let opened = known.open(netns, &self.host, &mut self.finder, &self.poller);
            (known.used_at, known.refusal) = (Instant::now(), opened.err().map(Refusal::new));
        }
    }

    /// Those that are followed: of trusted users first, then one of each user after the other.
    #[cfg(feature = "ebpf")]
    pub(crate) fn order(&self) -> &[u64] {
        &self.order
    }

    /// Whether a VM is in it that has not ended. The others are closed with the tick.
    pub(crate) fn is_wanted(&self, netns: u64) -> bool {
        self.foreign.get(&netns).is_some_and(|known| known.is_wanted)
    }

    /// Whose VMs are in a namespace. In the daemon's own only root makes devices.
    #[cfg(feature = "ebpf")]
    pub(crate) fn tenant(&self, netns: Option<u64>) -> Tenant {
        let of_foreign = |netns| self.foreign.get(&netns).map_or(Tenant::Other(None), |known| known.tenant);
        netns.map_or(Tenant::Trusted, of_foreign)
    }

    /// Whether there are some that could not be opened or entered.
    #[cfg(feature = "ebpf")]
    pub(crate) fn has_refused(&self) -> bool {
        self.foreign.values().any(|known| known.devices.is_none())
    }

    /// The foreign ones that have been entered, by inode.
    pub(crate) fn entered(&mut self) -> impl Iterator<Item = (u64, &mut ForeignNamespace)> {
        self.foreign
            .iter_mut()
            .filter(|(_, known)| known.devices.is_some())
            .map(|(netns, known)| (*netns, known))
    }

    /// The number that this process gave a foreign namespace, if it holds it open. It need not have entered it.
    pub(crate) fn held(&self, netns: u64) -> Option<u64> {
        self.foreign.get(&netns).filter(|known| known.handle.is_some()).map(|known| known.number)
    }

    /// The devices of a namespace, as far as it has been entered.
    pub(crate) fn devices(&mut self, netns: Option<u64>) -> Option<&mut Devices> {
        match netns {
            None => self.own.as_mut(),
            Some(netns) => self.foreign.get_mut(&netns)?.devices.as_mut(),
        }
    }

    /// Closes the namespaces in which no VM has a TAP any more. The readers have read their final counters.
    pub(crate) fn end_tick(&mut self) {
        self.is_followed = false;
        self.foreign.retain(|_, known| known.is_wanted);
    }
}

impl ForeignNamespace {
    fn new(pids: &[u32], tenant: Tenant, number: u64) -> Self {
        Self {
            is_wanted: true,
            used_at: Instant::now(),
            pids: pids.to_vec(),
            tenant,
            number,
            cookie: None,
            handle: None,
            devices: None,
            refusal: None,
        }
    }

    fn is_due(&self) -> bool {
        self.refusal.as_ref().is_some_and(|refusal| Instant::now() >= refusal.retry_at)
    }

    fn problem(&self, netns: u64) -> Option<NetError> {
        let Refusal { problem, errno, .. } = self.refusal.as_ref()?;
        Some(NetError::Namespace { netns, problem: problem.clone(), errno: *errno })
    }

    /// Finds the namespace, and opens its sockets on a thread in it: a socket stays where it was made.
    fn open(
        &mut self,
        netns: u64,
        host: &Host,
        finder: &mut Finder,
        poller: &EventPoller,
    ) -> Result<(), io::Error> {
        let handle = match &self.handle {
            Some(handle) => handle,
            None => self.handle.insert(Arc::new(find(finder, host, netns, &self.pids, self.tenant)?)),
        };
        let scope = if self.tenant.is_trusted() { Scope::TRUSTED } else { Scope::STRANGER };
        let devices = handle.within(|| Devices::open(scope))?.map_err(io::Error::other)?;
        poller.add(&devices.events, self.tenant);
        self.cookie = devices.links.netns_cookie();
        self.devices = Some(devices);
        Ok(())
    }

    /// The open file. Its clones keep the namespace alive.
    #[cfg(feature = "ebpf")]
    pub(crate) fn handle(&self) -> Option<Arc<Namespace>> {
        self.handle.clone()
    }

    #[cfg(feature = "ebpf")]
    pub(crate) fn cookie(&self) -> Option<u64> {
        self.cookie
    }

    pub(crate) fn tenant(&self) -> Tenant {
        self.tenant
    }

    pub(crate) fn devices(&mut self) -> Option<&mut Devices> {
        self.devices.as_mut()
    }

    /// The number that no other namespace has or will have.
    pub(crate) fn number(&self) -> u64 {
        self.cookie.unwrap_or(self.number)
    }
}

/// A process that does not answer in time is asked again later.
fn find(finder: &mut Finder, host: &Host, netns: u64, pids: &[u32], tenant: Tenant) -> io::Result<Namespace> {
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

/// The NICs of some VMs, by the inode of the namespace they are in; `None` is this process's own.
pub(crate) fn by_netns<'v>(nics: impl IntoIterator<Item = &'v Nic>) -> HashMap<Option<u64>, Vec<&'v Nic>> {
    let mut sorted: HashMap<_, Vec<_>> = HashMap::new();
    for nic in nics {
        sorted.entry(nic.netns).or_default().push(nic);
    }
    sorted
}

#[cfg(test)]
impl Default for Namespaces {
    fn default() -> Self {
        Self::new(&Host::default(), &Trust::default(), EventPoller::default())
    }
}

#[cfg(test)]
mod tests;
