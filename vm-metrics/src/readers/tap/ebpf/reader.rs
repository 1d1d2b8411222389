//! The reader: follows the TAPs of each tick, then reads their counters.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vm_metrics_common::Layout;

use super::budget::Budget;
use super::drops::{DropPins, Drops, unseen};
use super::error::LoadError;
use super::hook::attach::try_out;
use super::hook::filters::remove_filters_elsewhere;
use super::kernel::Kernel;
use super::netns_programs::{AttachOptions, AttachPlan, NetnsPrograms};
use super::options::Options;
use super::own_pins::{check_pins, own_load};
use super::programs::load::{Loader, Size};
use super::programs::pins::{self, PinError, Pins};
use super::starting::Starting;
use crate::host::Host;
use crate::model::Tenant;
use crate::model::{Batch, Nic, Removals, Trust, VmSet, in_one_line};
use crate::net::devices::Devices;
use crate::net::namespaces::{Namespaces, by_netns};
use crate::net::netns::Namespace;
use crate::readers::{ReadReport, Reader, ReaderContext, ReaderError};

/// What a daemon before this one has left in namespaces where no VM was found for so long after the start is removed.
const UNCLAIMED: Duration = Duration::from_secs(60);

/// TAPs of one namespace, of a user who is not trusted, that have the programs before it is another's turn.
const AT_A_VISIT: usize = 2;

pub(crate) struct TapEbpf {
    host: Host,
    loader: Loader,
    terms: AttachOptions,
    own: NetnsPrograms,
    trust: Trust,
    /// By the inode of the namespace.
    elsewhere: HashMap<u64, NetnsPrograms>,
    /// Counts the ticks: in each, another user comes first.
    turn: usize,
    drops: Result<Drops, LoadError>,
    /// When to clear away what nobody has claimed; `None` when that is done.
    clear_at: Option<Instant>,
    starting: Starting,
    /// Loading leaves the kernel's lock on network configuration alone, so it has time of its own.
    loading: Budget,
    attaching: Budget,
    detaching: Budget,
    /// Why nothing is pinned, though it should be.
    no_pins: Option<Arc<ReaderError>>,
    /// Whether this process may enter other namespaces, and so is the one to clear away what is left of them.
    may_enter: bool,
}

impl TapEbpf {
    /// With pins, takes over what the daemon before this one has left.
    pub(crate) fn new(
        options: &Options,
        context: &mut ReaderContext,
        pins: Result<Option<Pins>, ReaderError>,
    ) -> Result<Self, LoadError> {
        let host = &context.host;
        let (pins, no_pins) = match pins {
            Ok(pins) => (pins, None),
            Err(error) => (None, Some(Arc::new(error))),
        };
        let kernel = Kernel::read(&host.btf());
        let drop_pins = pins.as_ref().map(DropPins::of);
        let pin_dir = pins.is_some().then(|| options.pin_dir(host));
        let daemon = own_load(host).netns;
        let terms = AttachOptions { way: options.attach, max_nics: options.max_nics, pin_dir, daemon };
        let mut loader = Loader::new(layout(&kernel))?;
        let links = &context.namespaces.own().map_err(LoadError::Links)?.links;
        let own = NetnsPrograms::own(&mut loader, pins, links, &terms)?;
        Ok(Self {
            host: host.clone(),
            loader,
            terms,
            own,
            trust: context.trust.clone(),
            elsewhere: HashMap::new(),
            turn: 0,
            drops: drops(host, kernel, drop_pins),
            clear_at: Some(Instant::now() + UNCLAIMED),
            starting: Starting::default(),
            loading: Budget::full(),
            attaching: Budget::full(),
            detaching: Budget::full(),
            no_pins,
            may_enter: may_enter(host),
        })
    }

    /// Takes on the namespaces that are new in this tick; the programs come later, as there is time.
    fn follow(&mut self, namespaces: &mut Namespaces) {
        for (netns, known) in namespaces.entered() {
            if let Some(handle) = known.handle().filter(|_| !self.elsewhere.contains_key(&netns)) {
                self.elsewhere.insert(netns, NetnsPrograms::elsewhere(handle, known.cookie(), &self.terms));
            }
        }
    }

    /// That drops cannot be seen is no reason not to count the rest.
    fn follow_drops(&mut self, rounds: &[(Option<u64>, AttachPlan)], report: &mut ReadReport) {
        let Self { own, elsewhere, drops, .. } = self;
        let rounds: HashMap<_, _> = rounds.iter().map(|(netns, round)| (*netns, round)).collect();
        let mut followed = own.followed(rounds.get(&None).copied());
        for (netns, place) in elsewhere {
            followed.extend(place.followed(rounds.get(&Some(*netns)).copied()));
        }
        match drops.as_mut().map(|drops| drops.follow(followed)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => report.error(unseen(&error)),
            Err(error) => report.error(unseen(error)),
        }
    }

    /// What a daemon before this one has left may have counted drops of TAPs that this one cannot follow yet.
    fn await_drops(&self, vms: &VmSet, batch: &mut Batch) {
        if self.drops.is_err() || self.terms.pin_dir.is_none() {
            return;
        }
        let is_in_reach = |nic: &&Nic| nic.netns.is_none() || self.may_enter;
        for nic in vms.nics().filter(is_in_reach) {
            if !batch.drops.contains_key(nic) {
                batch.drops_awaited.insert(nic.clone());
            }
        }
    }

    fn clear_away(&mut self, namespaces: &Namespaces) {
        if self.clear_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        // What is not taken over yet would be taken for left over.
        if namespaces.has_refused() || self.elsewhere.values().any(|place| !place.is_open()) {
            return;
        }
        self.clear_at = None;
        if let Ok(drops) = &mut self.drops
            && let Err(error) = drops.keep_only_followed()
        {
            tracing::warn!("{}", error.in_one_line());
        }
        if let Some(pin_dir) = self.terms.pin_dir.as_ref().filter(|_| self.may_enter) {
            self.remove_unclaimed(pin_dir);
        }
    }

    fn remove_unclaimed(&self, pin_dir: &Path) {
        let removed = pins::remove_unheld(pin_dir, self.terms.daemon).unwrap_or_else(|error| {
            tracing::warn!("cannot look for pins that no VM is there for: {error}");
            Vec::new()
        });
        if removed.is_empty() {
            return;
        }
        let is_meant = |namespace| removed.iter().any(|dir| pins::netns_of(dir) == Some(namespace));
        let filters = remove_filters_elsewhere(&self.host, pin_dir, true, is_meant).unwrap_or_else(|error| {
            tracing::warn!("cannot remove filters that no VM is there for: {}", in_one_line(&error));
            Vec::new()
        });
        for line in removed.iter().map(|dir| format!("removed {}", dir.display())).chain(filters) {
            tracing::info!("no VM there: {line}");
        }
    }
}

fn place<'p>(
    own: &'p mut NetnsPrograms,
    elsewhere: &'p mut HashMap<u64, NetnsPrograms>,
    netns: Option<u64>,
) -> Option<&'p mut NetnsPrograms> {
    match netns {
        None => Some(own),
        Some(netns) => elsewhere.get_mut(&netns),
    }
}

fn may_enter(host: &Host) -> bool {
    let own = host.own_netns().map(|own| Namespace::find(host, own, &[std::process::id()]));
    own.is_some_and(|own| own.and_then(|own| own.within(|| ())).is_ok())
}

fn layout(kernel: &Result<Kernel, LoadError>) -> Option<Layout> {
    kernel.as_ref().ok().and_then(|kernel| kernel.layout().ok())
}

fn drops(host: &Host, kernel: Result<Kernel, LoadError>, pins: Option<DropPins>) -> Result<Drops, LoadError> {
    Drops::new(&kernel?, host.own_netns().unwrap_or_default(), pins)
}

impl Reader for TapEbpf {
    fn read(&mut self, vms: &VmSet, namespaces: &mut Namespaces, batch: &mut Batch) -> ReadReport {
        let mut report = ReadReport { pinned: Some(self.terms.pin_dir.is_some()), ..ReadReport::default() };
        if let Some(error) = &self.no_pins {
            report.error(ReaderError::Earlier(Arc::clone(error)));
        }
        report.add_namespaces(namespaces.follow(vms, &batch.ended));
        self.follow(namespaces);
        let mut nics = by_netns(vms.nics());
        // Where no TAP is any more, there may be programs to take off.
        nics.entry(None).or_default();
        for netns in self.elsewhere.keys() {
            nics.entry(Some(*netns)).or_default();
        }
        let rounds = self.begin(&nics, namespaces, batch, &mut report);
        self.follow_drops(&rounds, &mut report);
        let rounds = self.attach(rounds, namespaces, vms);
        // What was dropped had been offered, so it is read first: then no difference is below 0.
        if let Ok(drops) = &self.drops
            && let Err(error) = drops.read(batch)
        {
            report.error(unseen(&error));
        }
        self.await_drops(vms, batch);
        for (netns, round) in &rounds {
            if let Some(place) = place(&mut self.own, &mut self.elsewhere, *netns) {
                place.read(round, batch, &mut report);
            }
        }
        self.clear_away(namespaces);
        self.starting.note(&mut report);
        report
    }

    fn read_final(&mut self, removals: &Removals, namespaces: &mut Namespaces, batch: &mut Batch) {
        for nic in removals.vms.nics() {
            let Some(&ifindex) = removals.ifindexes.get(nic) else { continue };
            if batch.ebpf.contains_key(nic) {
                continue;
            }
            if let Ok(drops) = &self.drops
                && let Some(reading) = drops.read_final(nic, ifindex)
            {
                batch.drops.insert(nic.clone(), reading);
            }
            let place = place(&mut self.own, &mut self.elsewhere, nic.netns);
            if let Some(reading) = place.and_then(|place| place.read_final(nic, ifindex)) {
                batch.ebpf.insert(nic.clone(), reading);
            }
        }
        let Self { elsewhere, detaching, .. } = self;
        // One that has to wait for the next tick keeps its namespace alive until then.
        elsewhere.retain(|netns, place| namespaces.is_wanted(*netns) || !place.close(detaching));
    }
}

impl TapEbpf {
    fn begin<'v>(
        &mut self,
        nics: &HashMap<Option<u64>, Vec<&'v Nic>>,
        namespaces: &mut Namespaces,
        batch: &Batch,
        report: &mut ReadReport,
    ) -> Vec<(Option<u64>, AttachPlan<'v>)> {
        let Self { own, elsewhere, loader, detaching, loading, .. } = self;
        detaching.refill();
        loading.refill();
        let mut rounds = Vec::new();
        let followed = namespaces.order().to_vec();
        // Those that no VM is in any more come last.
        let left: Vec<u64> = nics.keys().filter_map(|netns| *netns).collect();
        let mut done = HashSet::new();
        for netns in [None].into_iter().chain(followed.into_iter().chain(left).map(Some)) {
            let Some(nics) = nics.get(&netns).filter(|_| done.insert(netns)) else { continue };
            loading.keep_for(namespaces.tenant(netns));
            let Some(place) = place(own, elsewhere, netns) else { continue };
            // Without devices the namespace is closed already, and the programs are being taken off.
            let Some(devices) = namespaces.devices(netns) else { continue };
            place.open(loader, &devices.links, loading);
            let is_read = |nic: &Nic| batch.taps.contains_key(nic);
            match place.begin(nics, devices, is_read, detaching, report) {
                Ok(round) => rounds.push((netns, round)),
                // Which TAPs are there is not known: the programs stay where they are, and go on counting.
                Err(error) => report.error(error),
            }
        }
        rounds
    }

    /// A few TAPs of each namespace of a user who is not trusted, as long as there is time.
    fn attach<'v>(
        &mut self,
        mut rounds: Vec<(Option<u64>, AttachPlan<'v>)>,
        namespaces: &mut Namespaces,
        vms: &VmSet,
    ) -> Vec<(Option<u64>, AttachPlan<'v>)> {
        self.turn += 1;
        let Self { own, elsewhere, loader, loading, attaching, trust, turn, .. } = self;
        attaching.refill();
        let tenants: HashMap<&Nic, Tenant> =
            vms.vms.iter().flat_map(|vm| vm.nics.iter().map(|nic| (nic, Tenant::of(vm, trust)))).collect();
        let of_nic = |nic: &Nic| tenants.get(nic).copied().unwrap_or(Tenant::Other(None));
        let mut go_on: Vec<usize> = (0..rounds.len()).collect();
        while !go_on.is_empty() {
            let mut next = Vec::new();
            for at in go_on {
                let (netns, round) = &mut rounds[at];
                let tenant = namespaces.tenant(*netns);
                let Some(place) = place(own, elsewhere, *netns) else { continue };
                let Some(Devices { links, .. }) = namespaces.devices(*netns) else { continue };
                loading.keep_for(tenant);
                attaching.keep_for(tenant);
                place.make_room(round, loader, links, loading);
                round.take_turns(of_nic, *turn);
                let at_most = if tenant.is_trusted() { usize::MAX } else { AT_A_VISIT };
                if place.attach(round, links, attaching, at_most) {
                    next.push(at);
                }
            }
            go_on = next;
        }
        rounds
    }
}

/// The reader of those who only want to know whether it would work: it attaches to no TAP, where it could disturb a
/// daemon.
pub(crate) struct Probe {
    drops: Result<Drops, LoadError>,
    pins: Result<(), Arc<ReaderError>>,
    /// Whether a daemon would have pins, this user's or another's.
    pinned: Option<bool>,
}

impl Probe {
    pub(crate) fn new(options: &Options, host: &Host) -> Result<Self, LoadError> {
        let kernel = Kernel::read(&host.btf());
        let mut loader = Loader::new(layout(&kernel))?;
        let mut loaded = loader.load(Size::of_own_namespace(options.max_nics), None)?;
        try_out(&mut loaded, options.attach).transpose()?;
        let checked = check_pins(options, host);
        let is_possible = matches!(&checked, Ok(()) | Err(PinError::OtherUser { .. }));
        let pins = checked.map_err(|error| Arc::new((&error).into()));
        let pinned = options.pin.then_some(is_possible);
        Ok(Self { drops: drops(host, kernel, None), pins, pinned })
    }
}

impl Reader for Probe {
    fn read(&mut self, _: &VmSet, _: &mut Namespaces, _: &mut Batch) -> ReadReport {
        let mut report = ReadReport { pinned: self.pinned, ..ReadReport::default() };
        if let Err(error) = &self.pins {
            report.error(ReaderError::Earlier(Arc::clone(error)));
        }
        if let Err(error) = &self.drops {
            report.error(unseen(error));
        }
        report
    }
}
