//! A foreign network namespace: its handle and its sockets.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::host::Host;
use crate::model::Tenant;
use crate::net::NetError;
use crate::net::devices::Devices;
use crate::net::events::EventPoller;
use crate::net::netns::Namespace;
use crate::net::rtnetlink::Scope;
use crate::patient::{Job, Patient};

/// A namespace that could not be opened or entered is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);

/// Asks processes for the namespace with an inode.
pub(super) type Finder = Patient<(Host, u64, Vec<u32>), io::Result<Namespace>>;

/// A network namespace in which VMs have TAPs.
#[derive(Debug)]
pub(crate) struct ForeignNamespace {
    pub(super) is_wanted: bool,
    /// When a VM last had a TAP there, and the processes of these VMs.
    pub(super) used_at: Instant,
    pub(super) pids: Vec<u32>,
    pub(super) tenant: Tenant,
    /// Tells it from any other that this process has opened.
    pub(super) number: u64,
    /// Tells it from any other; `None` before Linux 5.14, and where it was not entered.
    cookie: Option<u64>,
    pub(super) handle: Option<Arc<Namespace>>,
    pub(super) devices: Option<Devices>,
    /// Why the namespace has no handle or no devices.
    refusal: Option<Refusal>,
}

#[derive(Debug)]
struct Refusal {
    problem: String,
    errno: Option<i32>,
    retry_at: Instant,
}

impl ForeignNamespace {
    pub(super) fn new(pids: &[u32], tenant: Tenant, number: u64) -> Self {
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

    /// Whether it is time for another try.
    pub(super) fn is_due(&self) -> bool {
        self.refusal.as_ref().is_some_and(|refusal| Instant::now() >= refusal.retry_at)
    }

    pub(super) fn problem(&self, netns: u64) -> Option<NetError> {
        let Some(Refusal { problem, errno, .. }) = &self.refusal else {
            return self.devices.as_ref()?.problem();
        };
        Some(NetError::Namespace { netns, problem: problem.clone(), errno: *errno })
    }

    /// Tries to open the namespace with this inode, and notes the problem.
    pub(super) fn try_open(&mut self, netns: u64, host: &Host, finder: &mut Finder, poller: &EventPoller) {
        let opened = self.open(netns, host, finder, poller);
        (self.used_at, self.refusal) = (Instant::now(), opened.err().map(Refusal::new));
    }

    /// Finds the namespace, and opens its sockets on a thread in it: a socket stays in its namespace.
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
        devices.events.iter().for_each(|events| poller.add(events, self.tenant));
        self.cookie = devices.links.netns_cookie();
        self.devices = Some(devices);
        Ok(())
    }

    /// Opens the socket of events from within, if it was refused and it is time to try again.
    pub(super) fn listen_again(&mut self, poller: &EventPoller) {
        let (Some(handle), Some(devices)) = (&self.handle, &mut self.devices) else { return };
        if devices.is_listening_due() && handle.within(|| devices.listen()).is_ok() {
            devices.events.iter().for_each(|events| poller.add(events, self.tenant));
        }
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
