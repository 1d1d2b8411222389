//! Polls VMMs over their API sockets without delaying ticks.
//!
//! The tick sends sockets to a thread, and takes its answers. It waits a moment for the first answer of a new VM, and takes
//! all others later. The last answer counts until the process ends. VMMs are asked again at intervals, and when the NICs of
//! the VM have changed. A VMM that fails is asked less and less often.

mod budget;
mod error;
mod found;
mod http;
mod poller;
mod schedule;
#[cfg(test)]
pub mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use self::budget::PollBudget;
pub use self::error::QueryError;
pub use self::found::FoundVmms;
pub use self::http::Http;
use self::poller::{ApiPoller, Reply};
pub use self::poller::{Query, QueryFuture};
pub use self::schedule::Schedule;
use super::{Listing, SourceContext, SourceError};
use crate::host::Host;
use crate::model::{Excess, InstanceInfo, Nic, VmState};
use crate::sources::files::process_path::{STRANGERS_PATIENCE, Workers};
use crate::sources::process::ProcessDir;
use crate::sources::process::lookup::ProcessLookup;

/// From the first byte of the request to the last of the response.
const DEADLINE: Duration = Duration::from_millis(200);

/// How long a tick waits for the first answers of new VMs of trusted users. It exceeds the deadline for hosts too busy to
/// run the polling thread.
const FIRST_ANSWERS: Duration = Duration::from_secs(1);

/// The largest answer of a VMM in bytes; a large VM's is 50 KiB.
pub const ANSWER_LIMIT: usize = 1 << 20;

/// A socket, and whose it is to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Pid and start time. `None`: any process that listens.
    pub process: Option<(u32, u64)>,
    /// As that process sees it.
    pub path: PathBuf,
}

/// A VM by the API of its VMM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmmInfo {
    /// Id and name are empty where the API has none.
    pub info: InstanceInfo,
    /// The VM is not set up, or has not booted: the next query comes soon.
    pub unfinished: bool,
}

impl VmmInfo {
    /// Of a VMM without a complete VM.
    pub fn not_started() -> Self {
        let info = InstanceInfo { state: Some(VmState::NotStarted), ..InstanceInfo::default() };
        Self { info, unfinished: true }
    }
}

/// The VMMs of one kind.
#[derive(Debug)]
pub struct VmmApi {
    host: Host,
    workers: Workers,
    processes: ProcessLookup,
    query: Query,
    started: Instant,
    poller: Option<ApiPoller>,
    known: HashMap<Target, PolledVmm>,
    /// Sockets that were due and had to wait, in the last call.
    overuse: Excess,
}

/// A VMM, and its last answer.
#[derive(Debug, Default)]
struct PolledVmm {
    /// The user of its process. A socket without a process was named by the operator.
    uid: Option<u32>,
    is_trusted: bool,
    schedule: Schedule,
    nics: Vec<Nic>,
    under_way: bool,
    /// With the process that listens: they are of no use without it.
    answer: Option<(VmmInfo, Option<(u32, u64)>)>,
    problem: Option<QueryError>,
}

impl VmmApi {
    pub fn new(context: &SourceContext, query: Query) -> Self {
        Self {
            host: context.host.clone(),
            workers: context.workers.clone(),
            processes: context.processes.clone(),
            query,
            started: Instant::now(),
            poller: None,
            known: HashMap::new(),
            overuse: Excess::default(),
        }
    }

    /// Those VMMs and no others, each with the NICs that others know of it.
    pub fn list(
        &mut self,
        targets: impl Iterator<Item = (Target, Vec<Nic>)>,
    ) -> Result<Listing, SourceError> {
        self.list_at(self.started.elapsed(), targets)
    }

    fn list_at(
        &mut self,
        now: Duration,
        targets: impl Iterator<Item = (Target, Vec<Nic>)>,
    ) -> Result<Listing, SourceError> {
        self.take_answers(now, Duration::ZERO);
        self.keep(now, targets);
        let patience = self.query_due(now)?;
        self.take_answers(now, patience);
        Ok(self.listing())
    }

    fn keep(&mut self, now: Duration, targets: impl Iterator<Item = (Target, Vec<Nic>)>) {
        let mut before = std::mem::take(&mut self.known);
        for (target, nics) in targets {
            let mut known = before.remove(&target).unwrap_or_else(|| self.stranger(&target));
            if known.nics != nics {
                known.nics = nics;
                known.schedule.hasten(now);
            }
            let answered = known.answer.as_ref().and_then(|(_, process)| *process);
            if target.process.is_none() && answered.is_some_and(|process| !self.is_alive(process)) {
                known = PolledVmm { under_way: known.under_way, ..self.stranger(&target) };
            }
            self.known.insert(target, known);
        }
    }

    fn is_alive(&self, (pid, start_ticks): (u32, u64)) -> bool {
        let stat = self.processes.stat(pid);
        stat.is_ok_and(|stat| stat.start_ticks == start_ticks && !stat.is_dead())
    }

    fn stranger(&self, target: &Target) -> PolledVmm {
        let process = target.process.map(|(pid, _)| ProcessDir::new(&self.host, pid));
        let owner = process.as_ref().and_then(ProcessDir::owner);
        // Other users could make this read slow.
        let uid = if self.workers.trusts(owner) { process.and_then(|process| process.uid()) } else { owner };
        let is_trusted = target.process.is_none() || self.workers.trusts(uid);
        PolledVmm { uid, is_trusted, ..PolledVmm::default() }
    }

    /// How long the answers are worth waiting for: some sockets were never asked before.
    fn query_due(&mut self, now: Duration) -> Result<Duration, SourceError> {
        let mut room = PollBudget::of(&self.known, now);
        let mut due: Vec<_> = self.known.iter_mut().filter(|(_, known)| known.is_due(now)).collect();
        due.sort_unstable_by_key(|(_, known)| known.schedule.next());
        self.overuse = Excess::default();
        let (mut patience, mut requests) = (Duration::ZERO, Vec::new());
        for (target, known) in due {
            if !room.has_room_for(known) {
                self.overuse.add(known.uid, "sockets", u64::from(!known.is_trusted));
                continue;
            }
            room.take(known);
            known.under_way = true;
            if known.schedule.is_new() {
                patience = patience.max(if known.is_trusted { FIRST_ANSWERS } else { STRANGERS_PATIENCE });
            }
            requests.push((target.clone(), known.uid));
        }
        if !requests.is_empty() {
            self.poller()?.query(requests);
        }
        Ok(patience)
    }

    fn poller(&mut self) -> Result<&ApiPoller, SourceError> {
        let poller = match self.poller.take().filter(ApiPoller::is_running) {
            Some(poller) => poller,
            None => ApiPoller::spawn(self.host.clone(), self.workers.clone(), self.query)
                .map_err(|error| SourceError::io("start a thread for", "API sockets", error))?,
        };
        Ok(self.poller.insert(poller))
    }

    fn take_answers(&mut self, now: Duration, patience: Duration) {
        let began = Instant::now();
        while let Some(Reply { target, result }) = self.next_answer(began, patience) {
            // The process may have ended meanwhile.
            let Some(known) = self.known.get_mut(&target) else { continue };
            known.under_way = false;
            match result {
                Ok((vmm, process)) => {
                    known.schedule.answered(now, vmm.unfinished);
                    known.answer = Some((vmm, process));
                    known.problem = None;
                }
                Err(error) => {
                    known.schedule.failed(now);
                    known.problem = Some(error);
                }
            }
        }
    }

    /// Waits only while one is under way that was never asked before; and for those of strangers no longer than for theirs.
    fn next_answer(&self, began: Instant, patience: Duration) -> Option<Reply> {
        let new = || self.known.values().filter(|known| known.under_way && known.schedule.is_new());
        let patience = match () {
            () if new().any(|known| known.is_trusted) => patience,
            () if new().next().is_some() => patience.min(STRANGERS_PATIENCE),
            () => Duration::ZERO,
        };
        self.poller.as_ref()?.answer(patience.saturating_sub(began.elapsed()))
    }

    fn listing(&self) -> Listing {
        let mut listing = Listing { overuse: self.overuse.clone(), ..Listing::default() };
        for (target, known) in &self.known {
            if let Some((vmm, _)) = &known.answer {
                listing.instances.push(vmm.info.clone());
            }
            if let Some(error) = &known.problem {
                listing.problems.push(error.of(target));
            }
        }
        listing.instances.sort_unstable_by(|a, b| (a.hypervisor_pid, &a.id).cmp(&(b.hypervisor_pid, &b.id)));
        listing.problems.sort_unstable_by_key(ToString::to_string);
        listing
    }
}

impl PolledVmm {
    fn is_due(&self, now: Duration) -> bool {
        !self.under_way && self.schedule.is_due(now)
    }
}
