//! The reader: follows the TAPs of each tick, then reads their counters.

use vm_metrics_common::Layout;

use super::Options;
use super::attach::try_out;
use super::budget::Budget;
use super::drops::{DropPins, Drops, unseen};
use super::error::LoadError;
use super::instance::{Instance, Present};
use super::kernel::Kernel;
use super::load::{Loader, Size};
use super::pins::Pins;
use crate::host::Host;
use crate::model::{Batch, Leaving, VmSet};
use crate::readers::rtnetlink::Links;
use crate::readers::{ReadReport, Reader};

pub(super) struct TapEbpf {
    links: Links,
    instance: Instance,
    drops: Result<Drops, LoadError>,
}

impl TapEbpf {
    /// With pins, takes over what the daemon before this one has left.
    pub(super) fn new(options: &Options, host: &Host, pins: Option<Pins>) -> Result<Self, LoadError> {
        let links = Links::open().map_err(LoadError::Links)?;
        let kernel = Kernel::read(&host.btf());
        let drop_pins = pins.as_ref().map(DropPins::of);
        let size = Size::of_own_namespace(options.max_nics);
        let mut loader = Loader::new(layout(&kernel))?;
        let instance = Instance::new(&mut loader, size, options.attach, pins, &links, None)?;
        let drops = drops(options, host, kernel, drop_pins).and_then(|mut drops| {
            drops.keep(|ifindex| instance.counts(ifindex))?;
            Ok(drops)
        });
        Ok(Self { links, instance, drops })
    }

    /// That drops cannot be seen is no reason not to count the rest.
    fn follow_drops(&mut self, present: &Present, report: &mut ReadReport) {
        let present = present.iter().map(|(ifindex, nic)| (*ifindex, *nic));
        match self.drops.as_mut().map(|drops| drops.follow(present)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => report.error(unseen(&error)),
            Err(error) => report.error(unseen(error)),
        }
    }
}

fn layout(kernel: &Result<Kernel, LoadError>) -> Option<Layout> {
    kernel.as_ref().ok().and_then(|kernel| kernel.layout().ok())
}

fn drops(
    options: &Options,
    host: &Host,
    kernel: Result<Kernel, LoadError>,
    pins: Option<DropPins>,
) -> Result<Drops, LoadError> {
    Drops::new(&kernel?, options.max_nics, host.own_netns().unwrap_or_default(), pins)
}

impl Reader for TapEbpf {
    fn read(&mut self, vms: &VmSet, batch: &mut Batch) -> ReadReport {
        let mut report = ReadReport::default();
        let present = match self.links.find(vms.local_nics()) {
            Ok(present) => present,
            // Which TAPs are there is not known: the programs stay where they are, and go on counting.
            Err(error) => {
                report.error(error);
                return report;
            }
        };
        let changes = self.instance.changes(&present, &self.links);
        self.instance.detach(&changes, &mut Budget::of_a_tick(), &mut report);
        self.follow_drops(&present, &mut report);
        self.instance.attach(&changes, &mut self.links, &mut Budget::of_a_tick());
        // What was dropped had been offered, so it is read first: then no difference is below 0.
        if let Ok(drops) = &self.drops
            && let Err(error) = drops.read(batch)
        {
            report.error(unseen(&error));
        }
        let lost = self.instance.read(&present, batch, &mut report);
        self.instance.attach_again(&lost, &mut report);
        report
    }

    fn last_words(&mut self, leaving: &Leaving, batch: &mut Batch) {
        for nic in leaving.vms.local_nics() {
            if batch.ebpf.contains_key(nic) {
                continue;
            }
            if let Ok(drops) = &self.drops
                && let Some(reading) = drops.last_words(nic)
            {
                batch.drops.insert(nic.clone(), reading);
            }
            if let Some(reading) = self.instance.last_words(nic) {
                batch.ebpf.insert(nic.clone(), reading);
            }
        }
    }
}

/// The reader of those who only want to know whether it would work: it attaches to no TAP, where it could disturb a
/// daemon.
pub(super) struct Trial {
    drops: Result<Drops, LoadError>,
}

impl Trial {
    pub(super) fn new(options: &Options, host: &Host) -> Result<Self, LoadError> {
        let kernel = Kernel::read(&host.btf());
        let mut loader = Loader::new(layout(&kernel))?;
        let mut loaded = loader.load(Size::of_own_namespace(options.max_nics), None)?;
        try_out(&mut loaded, options.attach).transpose()?;
        Ok(Self { drops: drops(options, host, kernel, None) })
    }
}

impl Reader for Trial {
    fn read(&mut self, _: &VmSet, _: &mut Batch) -> ReadReport {
        let mut report = ReadReport::default();
        if let Err(error) = &self.drops {
            report.error(unseen(error));
        }
        report
    }
}
