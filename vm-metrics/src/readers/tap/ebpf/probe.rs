//! The reader of one-shot runs: tries the programs, and attaches to no TAP.

use std::sync::Arc;

use super::drops::{Drops, unseen};
use super::error::LoadError;
use super::hook::attach::try_out;
use super::kernel::Kernel;
use super::options::Options;
use super::own_pins::check_pins;
use super::programs::load::{Loader, Size};
use super::programs::pins::PinError;
use super::reader::{drops, layout};
use crate::host::Host;
use crate::model::{Batch, VmSet};
use crate::net::namespaces::Namespaces;
use crate::readers::{ReadReport, Reader, ReaderError};

/// Disturbs no daemon that runs, and says whether one could count.
pub(crate) struct Probe {
    drops: Result<Drops, LoadError>,
    pins: Result<(), Arc<ReaderError>>,
    /// Whether a daemon would have pins, this user's or another's.
    pinned: Option<bool>,
}

impl Probe {
    pub(crate) fn new(options: &Options, host: &Host) -> Result<Self, LoadError> {
        let kernel = Kernel::read(&host.btf());
        let mut loader = Loader::new(layout(&kernel), options.splits())?;
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
