//! The reader: follows the TAPs of each tick, then reads their counters.

use super::Options;
use super::attach::try_out;
use super::budget::Budget;
use super::error::LoadError;
use super::instance::Instance;
use super::load::{Loader, Size};
use super::pins::Pins;
use crate::model::{Batch, Leaving, VmSet};
use crate::readers::rtnetlink::Links;
use crate::readers::{ReadReport, Reader};

pub(super) struct TapEbpf {
    links: Links,
    instance: Instance,
}

impl TapEbpf {
    /// With pins, takes over what the daemon before this one has left.
    pub(super) fn new(options: &Options, pins: Option<Pins>) -> Result<Self, LoadError> {
        let links = Links::open().map_err(LoadError::Links)?;
        let size = Size::of_own_namespace(options.max_nics);
        let instance = Instance::new(&mut Loader::new()?, size, options.attach, pins, &links, None)?;
        Ok(Self { links, instance })
    }
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
        self.instance.attach(&changes, &mut self.links, &mut Budget::of_a_tick());
        let lost = self.instance.read(&present, batch, &mut report);
        self.instance.attach_again(&lost, &mut report);
        report
    }

    fn last_words(&mut self, leaving: &Leaving, batch: &mut Batch) {
        for nic in leaving.vms.local_nics() {
            if batch.ebpf.contains_key(nic) {
                continue;
            }
            if let Some(reading) = self.instance.last_words(nic) {
                batch.ebpf.insert(nic.clone(), reading);
            }
        }
    }
}

/// The reader of those who only want to know whether it would work: it attaches to no TAP, where it could disturb a
/// daemon.
#[derive(Debug)]
pub(super) struct Trial;

impl Trial {
    pub(super) fn new(options: &Options) -> Result<Self, LoadError> {
        let mut loaded = Loader::new()?.load(Size::of_own_namespace(options.max_nics), None)?;
        try_out(&mut loaded, options.attach).transpose()?;
        Ok(Self)
    }
}

impl Reader for Trial {
    fn read(&mut self, _: &VmSet, _: &mut Batch) -> ReadReport {
        ReadReport::default()
    }
}
