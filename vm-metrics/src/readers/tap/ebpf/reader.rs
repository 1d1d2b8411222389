//! Follows the TAPs of each tick, and reads their counters.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vm_metrics_common::{Layout, Splits};

use super::budget::Budget;
use super::drops::{DropPins, Drops, unseen};
use super::error::LoadError;
use super::kernel::Kernel;
use super::netns_programs::{AttachOptions, AttachPlan, NetnsPrograms};
use super::options::Options;
use super::own_pins::own_load;
use super::present::{Present, present_taps};
use super::programs::load::Loader;
use super::programs::pins::Pins;
use super::starting::Starting;
use crate::host::Host;
use crate::model::{Batch, Nic, Tenant, Trust, VmSet};
use crate::net::devices::Devices;
use crate::net::namespaces::Namespaces;
use crate::net::netns::Namespace;
use crate::readers::{ReadReport, Reader, ReaderContext, ReaderError};

/// What a daemon before this one has left in namespaces where no VM was found for so long after the start is removed.
const UNCLAIMED: Duration = Duration::from_secs(60);

/// TAPs of one namespace, of a user who is not trusted, that have the programs before it is another's turn.
const AT_A_VISIT: usize = 2;

pub(crate) struct TapEbpf {
    pub(super) host: Host,
    loader: Loader,
    splits: Splits,
    pub(super) attach_options: AttachOptions,
    own: NetnsPrograms,
    trust: Trust,
    /// By the inode of the namespace.
    pub(super) foreign: HashMap<u64, NetnsPrograms>,
    /// Counts the ticks: in each, another user comes first.
    turn: usize,
    pub(super) drops: Result<Drops, LoadError>,
    /// When to clear away what nobody has claimed; `None` when that is done.
    pub(super) clear_at: Option<Instant>,
    starting: Starting,
    /// Loading leaves the kernel's lock on network configuration alone, so it has time of its own.
    loading: Budget,
    attaching: Budget,
    detaching: Budget,
    /// Why nothing is pinned, though it should be.
    no_pins: Option<Arc<ReaderError>>,
    /// Whether this process may enter other namespaces, and so is the one to clear away what is left of them.
    pub(super) may_enter: bool,
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
        let attach_options =
            AttachOptions { way: options.attach, max_nics: options.max_nics, pin_dir, daemon };
        let mut loader = Loader::new(layout(&kernel), options.splits())?;
        let links = &context.namespaces.own().map_err(LoadError::Links)?.links;
        let own = NetnsPrograms::own(&mut loader, pins, links, &attach_options)?;
        Ok(Self {
            host: host.clone(),
            loader,
            splits: options.splits(),
            attach_options,
            own,
            trust: context.trust.clone(),
            foreign: HashMap::new(),
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
            if let Some(handle) = known.handle().filter(|_| !self.foreign.contains_key(&netns)) {
                self.foreign
                    .insert(netns, NetnsPrograms::foreign(handle, known.cookie(), &self.attach_options));
            }
        }
    }

    /// That drops cannot be seen is no reason not to count the rest.
    fn follow_drops(&mut self, plans: &[(Option<u64>, AttachPlan)], report: &mut ReadReport) {
        let Self { own, foreign, drops, .. } = self;
        let plans: HashMap<_, _> = plans.iter().map(|(netns, plan)| (*netns, plan)).collect();
        let mut followed = own.followed(plans.get(&None).copied());
        for (netns, programs) in foreign {
            followed.extend(programs.followed(plans.get(&Some(*netns)).copied()));
        }
        match drops.as_mut().map(|drops| drops.follow(followed)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => report.error(unseen(&error)),
            Err(error) => report.error(unseen(error)),
        }
    }

    /// What a daemon before this one has left may have counted drops of TAPs that this one cannot follow yet.
    fn await_drops(&self, vms: &VmSet, batch: &mut Batch) {
        if self.drops.is_err() || self.attach_options.pin_dir.is_none() {
            return;
        }
        let is_in_reach = |nic: &Nic| nic.netns.is_none() || self.may_enter;
        for (_, readings) in vms.nics().zip(&mut batch.nics).filter(|(nic, _)| is_in_reach(nic)) {
            readings.awaits_drops = readings.drops.is_none();
        }
    }
}

fn programs_of<'p>(
    own: &'p mut NetnsPrograms,
    foreign: &'p mut HashMap<u64, NetnsPrograms>,
    netns: Option<u64>,
) -> Option<&'p mut NetnsPrograms> {
    match netns {
        None => Some(own),
        Some(netns) => foreign.get_mut(&netns),
    }
}

fn may_enter(host: &Host) -> bool {
    let own = host.own_netns().map(|own| Namespace::find(host, own, &[std::process::id()]));
    own.is_some_and(|own| own.and_then(|own| own.within(|| ())).is_ok())
}

pub(super) fn layout(kernel: &Result<Kernel, LoadError>) -> Option<Layout> {
    kernel.as_ref().ok().and_then(|kernel| kernel.layout().ok())
}

pub(super) fn drops(
    host: &Host,
    kernel: Result<Kernel, LoadError>,
    pins: Option<DropPins>,
) -> Result<Drops, LoadError> {
    Drops::new(&kernel?, host.own_netns().unwrap_or_default(), pins)
}

impl Reader for TapEbpf {
    fn reads_devices(&self) -> bool {
        true
    }

    fn read(&mut self, vms: &VmSet, namespaces: &mut Namespaces, batch: &mut Batch) -> ReadReport {
        let mut report =
            ReadReport { pinned: Some(self.attach_options.pin_dir.is_some()), ..ReadReport::default() };
        if let Some(error) = &self.no_pins {
            report.error(ReaderError::Earlier(Arc::clone(error)));
        }
        batch.splits = self.splits;
        report.add_namespaces(namespaces.report());
        self.follow(namespaces);
        let plans = self.begin(present_taps(vms, batch), namespaces, &mut report);
        self.follow_drops(&plans, &mut report);
        let plans = self.attach(plans, namespaces, vms, batch);
        // What was dropped had been offered, so it is read first: then no difference is below 0.
        if let Ok(drops) = &self.drops
            && let Err(error) = drops.read(batch)
        {
            report.error(unseen(&error));
        }
        self.await_drops(vms, batch);
        for (netns, plan) in &plans {
            if let Some(programs) = programs_of(&mut self.own, &mut self.foreign, *netns) {
                programs.read(plan, batch, &mut report);
            }
        }
        self.clear_away(namespaces);
        self.starting.note(&mut report);
        report
    }

    fn read_final(&mut self, removals: &VmSet, namespaces: &mut Namespaces, batch: &mut Batch) {
        for (at, _) in batch.removed_nics(removals) {
            let readings = &mut batch.nics[at];
            let (Some(device), None) = (readings.device, readings.ebpf) else { continue };
            if let Ok(drops) = &self.drops {
                readings.drops = drops.read_final(device.id).or(readings.drops);
            }
            let programs = programs_of(&mut self.own, &mut self.foreign, device.id.netns);
            readings.ebpf = programs.and_then(|programs| programs.read_final(device.id));
        }
        let Self { foreign, detaching, .. } = self;
        // One that has to wait for the next tick keeps its namespace alive until then.
        foreign.retain(|netns, programs| namespaces.is_wanted(*netns) || !programs.close(detaching));
    }
}

impl TapEbpf {
    fn begin<'v>(
        &mut self,
        mut taps: HashMap<Option<u64>, Present<'v>>,
        namespaces: &mut Namespaces,
        report: &mut ReadReport,
    ) -> Vec<(Option<u64>, AttachPlan<'v>)> {
        let Self { own, foreign, loader, detaching, loading, .. } = self;
        detaching.refill();
        loading.refill();
        let mut plans = Vec::new();
        let followed = namespaces.order().to_vec();
        // Where no TAP is any more, there may be programs to take off. These namespaces come last.
        let left: Vec<u64> = foreign.keys().copied().collect();
        let mut done = HashSet::new();
        for netns in [None].into_iter().chain(followed.into_iter().chain(left).map(Some)) {
            if !done.insert(netns) {
                continue;
            }
            loading.keep_for(namespaces.tenant(netns));
            let Some(programs) = programs_of(own, foreign, netns) else { continue };
            // Without devices the namespace is closed already, and the programs are being taken off.
            let Some(devices) = namespaces.devices(netns) else { continue };
            programs.open(loader, &devices.links, loading);
            match devices.unresolved() {
                None => {
                    let present = taps.remove(&netns).unwrap_or_default();
                    plans.push((netns, programs.begin(present, devices, detaching, report)));
                }
                // Which TAPs are there is not known: the programs stay where they are, and go on counting.
                Some(problem) => report.error(problem.into()),
            }
        }
        plans
    }

    /// A few TAPs of each namespace of a user who is not trusted, as long as there is time.
    fn attach<'v>(
        &mut self,
        mut plans: Vec<(Option<u64>, AttachPlan<'v>)>,
        namespaces: &mut Namespaces,
        vms: &VmSet,
        batch: &Batch,
    ) -> Vec<(Option<u64>, AttachPlan<'v>)> {
        self.turn += 1;
        let packets = |at: usize| {
            let stats = batch.nics[at].tap.unwrap_or_default().stats;
            stats.rx_packets.saturating_add(stats.tx_packets)
        };
        plans.iter_mut().for_each(|(_, plan)| plan.busiest_first(packets));
        let Self { own, foreign, loader, loading, attaching, trust, turn, .. } = self;
        attaching.refill();
        let tenants: HashMap<&Nic, Tenant> =
            vms.vms.iter().flat_map(|vm| vm.nics.iter().map(|nic| (nic, Tenant::of(vm, trust)))).collect();
        let of_nic = |nic: &Nic| tenants.get(nic).copied().unwrap_or(Tenant::Other(None));
        let mut go_on: Vec<usize> = (0..plans.len()).collect();
        while !go_on.is_empty() {
            let mut next = Vec::new();
            for at in go_on {
                let (netns, plan) = &mut plans[at];
                let tenant = namespaces.tenant(*netns);
                let Some(programs) = programs_of(own, foreign, *netns) else { continue };
                let Some(Devices { links, .. }) = namespaces.devices(*netns) else { continue };
                loading.keep_for(tenant);
                attaching.keep_for(tenant);
                programs.make_room(plan, loader, links, loading);
                plan.take_turns(of_nic, *turn);
                let at_most = if tenant.is_trusted() { usize::MAX } else { AT_A_VISIT };
                if programs.attach(plan, links, attaching, at_most) {
                    next.push(at);
                }
            }
            go_on = next;
        }
        plans
    }
}
