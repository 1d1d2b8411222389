//! The network namespaces of VMs, each opened once for all readers.

mod foreign;
mod resolve;
mod selection;
mod sysfs;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use super::NetError;
use super::device_table::DeviceTable;
use super::devices::Devices;
use super::events::EventPoller;
use super::netns::Namespace;
use super::rtnetlink::Scope;
use crate::host::Host;
use crate::model::{DeviceId, Excess, FIRST_NUMBER, Nic, Tenant, Trust, VmSet};
use crate::patient::Patient;
use foreign::{Finder, ForeignNamespace};
use selection::{Wanted, wanted};
use sysfs::SysfsDevices;

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
    table: DeviceTable,
    sysfs: SysfsDevices,
    /// The namespaces of this tick that users want beyond their shares.
    overuse: Excess,
}

/// A namespace with open sockets.
#[derive(Debug)]
pub(crate) struct EnteredNamespace<'n> {
    /// Its inode; `None` for this process's own.
    pub(crate) netns: Option<u64>,
    /// The number that no other foreign namespace has or will have.
    pub(crate) number: Option<u64>,
    pub(crate) devices: &'n mut Devices,
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
            table: DeviceTable::new(host),
            sysfs: SysfsDevices::default(),
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

    /// The namespaces that are left out of this tick, and those without events.
    pub(crate) fn report(&self) -> FollowReport {
        let of_own = self.own.as_ref().and_then(Devices::problem);
        let of_foreign = self.order.iter().filter_map(|netns| self.foreign.get(netns)?.problem(*netns));
        FollowReport {
            problems: of_own.into_iter().chain(of_foreign).collect(),
            overuse: self.overuse.clone(),
        }
    }

    /// Decides which namespaces this tick follows, and opens them.
    ///
    /// Namespaces of trusted users are opened at once. Those of others are opened within their shares, as time allows.
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
            known.try_open(netns, &self.host, &mut self.finder, &self.poller);
        }
    }

    /// Those that are followed: of trusted users first, then one of each user after the other.
    #[cfg(feature = "ebpf")]
    pub(crate) fn order(&self) -> &[u64] {
        &self.order
    }

    /// Whether a VM is in it that has not ended. The others are closed with the tick.
    #[cfg(feature = "ebpf")]
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

    /// Whether a tick that has the time will open it.
    pub(crate) fn is_deferred(&self, netns: u64) -> bool {
        self.order.contains(&netns) && !self.foreign.contains_key(&netns)
    }

    /// The devices of a namespace, as far as it has been entered.
    pub(crate) fn devices(&mut self, netns: Option<u64>) -> Option<&mut Devices> {
        match netns {
            None => self.own.as_mut(),
            Some(netns) => self.foreign.get_mut(&netns)?.devices.as_mut(),
        }
    }

    /// The devices that are known over ticks.
    pub(crate) fn table(&mut self) -> &mut DeviceTable {
        &mut self.table
    }

    /// The daemon's own namespace and all that have been entered, with what is known of their devices over ticks.
    pub(crate) fn all_devices(&mut self) -> (impl Iterator<Item = EnteredNamespace<'_>>, &mut DeviceTable) {
        let own = self.own.iter_mut().map(|devices| EnteredNamespace { netns: None, number: None, devices });
        let foreign = self.foreign.iter_mut().filter_map(|(netns, known)| {
            let (netns, number) = (Some(*netns), Some(known.number()));
            Some(EnteredNamespace { netns, number, devices: known.devices.as_mut()? })
        });
        (own.chain(foreign), &mut self.table)
    }

    /// Closes the namespaces in which no VM has a TAP any more, and forgets devices that nothing counts for. The readers
    /// have read their final counters.
    pub(crate) fn end_tick(&mut self, is_counted: impl Fn(DeviceId) -> bool) {
        self.foreign.retain(|_, known| known.is_wanted);
        self.table.tidy(is_counted);
    }
}

/// NICs with their positions, by the inode of the namespace they are in; `None` is this process's own.
pub(crate) fn by_netns<'v>(
    nics: impl IntoIterator<Item = (usize, &'v Nic)>,
) -> HashMap<Option<u64>, Vec<(usize, &'v Nic)>> {
    let mut sorted: HashMap<_, Vec<_>> = HashMap::new();
    for (at, nic) in nics {
        sorted.entry(nic.netns).or_default().push((at, nic));
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
