//! Polls every source in each tick and merges the listings.
//!
//! A source that fails keeps its VMs for 30 seconds.

mod background;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use self::background::BackgroundSource;
use super::{ApiSocket, Listing, Precedence, Source, SourceContext, SourceError};
use crate::config::Switch;
use crate::model::{Excess, VmSet};
use crate::sources::merge::evidence::{Evidence, LocalDevice, ProcessTable};
use crate::sources::merge::{Merge, SavedIds, SourceListing};
use crate::sources::push::Inbox;

/// How long the VMs of a failing source stay listed. A host without free descriptors must not end every series, and an
/// ended VM must not seem to run for long.
pub(super) const KEEP_LISTING: Duration = Duration::from_secs(30);

/// The name of an embedding program's source in health and metrics.
const OWN: &str = "instance_source";

/// The sources in use, asked as one.
pub struct Sources {
    pub(super) sources: Vec<SourceEntry>,
    pub(super) switched_off: Vec<&'static str>,
    context: SourceContext,
    merge: Merge,
}

/// Results of a round for the sources that are polled later in it.
#[derive(Debug, Default)]
struct RoundResults {
    sockets: HashMap<u32, ApiSocket>,
    /// The processes that sources list as VMs.
    pids: Vec<u32>,
    processes: ProcessTable,
}

/// A source and its last listing.
pub(super) struct SourceEntry {
    pub(super) name: &'static str,
    precedence: Precedence,
    switch: Switch,
    source: Box<dyn Source>,
    last: SourceListing,
    /// When the source made it; `None` where it does not count any more.
    listed: Option<Instant>,
}

/// How it went with one source.
#[derive(Clone, Debug)]
pub struct SourceReport {
    pub name: &'static str,
    /// How many VMs it listed.
    pub result: Result<usize, SourceError>,
    pub problems: Vec<String>,
    /// How many of the problems are but that a VM does not run.
    pub absent: usize,
    pub duration: Duration,
    /// It is used only where there is something for it.
    pub auto: bool,
    /// Demands of users beyond their share.
    pub overuse: Excess,
}

impl Sources {
    /// The most trusted source first.
    pub fn new(sources: Vec<(&'static str, Box<dyn Source>)>) -> Self {
        let written = |(name, source)| SourceEntry::new(name, Precedence::Declared, Switch::On, source);
        Self {
            sources: sources.into_iter().map(written).collect(),
            switched_off: Vec::new(),
            merge: Merge::default(),
            context: SourceContext::default(),
        }
    }

    /// Makes the sources of this host, whose claims the rules of trust check.
    pub(super) fn within(context: &SourceContext) -> Self {
        let boot_id = context.host.boot_id().unwrap_or_default();
        let merge = Merge::new(context.retention, boot_id);
        Self { context: context.clone(), merge, ..Self::new(Vec::new()) }
    }

    /// Keeps the ids of VMs in this directory, over restarts. Who only looks writes nothing.
    pub(crate) fn remember_in(&mut self, dir: &Path, is_for_reading: bool) {
        if let Some(saved) = SavedIds::new(&self.context.host, dir, is_for_reading) {
            self.merge.remember_in(saved);
        }
    }

    /// The one that comes before all others; replaces the one that was set before.
    pub(crate) fn set_own(&mut self, source: Box<dyn Source>) {
        self.sources.retain(|source| source.name != OWN);
        self.sources.insert(0, SourceEntry::new(OWN, Precedence::Declared, Switch::On, source));
    }

    /// The sources that the configuration turned off, or gave nothing to list.
    pub fn switched_off(&self) -> &[&'static str] {
        &self.switched_off
    }

    /// The sockets to be served, and whether one that cannot be is a fault.
    pub fn inboxes(&self) -> Vec<(Inbox, bool)> {
        let inbox = |entry: &SourceEntry| Some((entry.source.inbox()?, entry.switch == Switch::On));
        self.sources.iter().filter_map(inbox).collect()
    }

    /// Asks each source. One that fails does not hinder the others, and keeps the VMs it listed last for a while.
    pub fn list(&mut self) -> (VmSet, Vec<SourceReport>) {
        self.list_at(Instant::now())
    }

    pub(super) fn list_at(&mut self, now: Instant) -> (VmSet, Vec<SourceReport>) {
        let mut found = RoundResults::default();
        let mut answers: Vec<_> = self.sources.iter().map(|_| None).collect();
        // Processes are looked at once they are named, and VMMs are asked once they are found.
        for pass in [
            |precedence| precedence != Precedence::Vmm && precedence != Precedence::Process,
            |precedence| precedence == Precedence::Process,
            |precedence| precedence == Precedence::Vmm,
        ] {
            let sockets: Vec<_> = found.sockets.values().cloned().collect();
            for (entry, answer) in self.sources.iter_mut().zip(&mut answers) {
                if pass(entry.precedence) {
                    entry.source.found(&sockets);
                    entry.source.named(&found.pids);
                    *answer = Some(entry.list_at(now, &mut found));
                }
            }
        }
        let (listings, mut reports): (Vec<_>, Vec<_>) = answers.into_iter().flatten().unzip();
        let SourceContext { host, trust, .. } = &self.context;
        // Several sources may name a device, which is looked up once.
        let known = RefCell::new(HashMap::new());
        let device = |name: &str| {
            let look_up = || LocalDevice::of(host, name);
            *known.borrow_mut().entry(name.to_owned()).or_insert_with(look_up)
        };
        let evidence = Evidence { trust, processes: &found.processes, device: &device };
        let (vms, problems, overuse) = self.merge.merge(listings, evidence, now);
        for (report, (problems, overuse)) in reports.iter_mut().zip(problems.into_iter().zip(overuse)) {
            report.problems.extend(problems);
            report.overuse.merge(overuse);
        }
        (VmSet { vms }, reports)
    }
}

impl SourceEntry {
    pub(super) fn new(
        name: &'static str,
        precedence: Precedence,
        switch: Switch,
        source: Box<dyn Source>,
    ) -> Self {
        // The others never wait, and need the results of this round.
        let may_hang = !matches!(precedence, Precedence::Process | Precedence::Vmm);
        let source = if may_hang { Box::new(BackgroundSource::new(source)) } else { source };
        Self { name, precedence, switch, source, last: SourceListing::nothing(precedence), listed: None }
    }

    pub(super) fn fact_rank(&self) -> usize {
        self.precedence.fact_rank()
    }

    fn list_at(&mut self, now: Instant, found: &mut RoundResults) -> (SourceListing, SourceReport) {
        let began = Instant::now();
        let listing = self.source.list();
        let duration = began.elapsed();
        let (result, problems, overuse) = match listing {
            Ok(Listing { instances, ended, mut problems, sockets, processes, overuse }) => {
                let count = instances.len();
                let (precedence, is_own) = (self.precedence, self.name == OWN);
                self.last = SourceListing { precedence, instances, ended, processes, is_own };
                self.listed = Some(now);
                // One socket for each process; its own claim comes last.
                found.sockets.extend(sockets.into_iter().map(|socket| (socket.pid, socket)));
                // Faults come first.
                problems.sort_by_key(SourceError::is_absence);
                (Ok(count), problems, overuse)
            }
            Err(error) => {
                if self.listed.take_if(|listed| now.duration_since(*listed) >= KEEP_LISTING).is_some() {
                    self.last = SourceListing::nothing(self.precedence);
                }
                (Err(error), Vec::new(), Excess::default())
            }
        };
        let listing = self.last.clone();
        found.pids.extend(listing.instances.iter().filter_map(|vm| vm.hypervisor_pid));
        found.processes.extend(listing.processes.clone());
        let absent = problems.iter().filter(|problem| problem.is_absence()).count();
        let problems = problems.iter().map(ToString::to_string).collect();
        let auto = self.switch == Switch::Auto;
        (listing, SourceReport { name: self.name, result, problems, absent, duration, auto, overuse })
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.sources.iter().map(|source| source.name)).finish()
    }
}
