//! What the VMs use. A reader reads one kind of file, map or socket for all VMs; it neither times nor judges itself,
//! neither merges nor turns directions round.
//!
//! A new reader is one file here, its `mod` line and its line in [`READERS`]: its configuration section, health and
//! timing follow from the table.

mod error;
mod kept;
mod proc_stat;
mod proc_statm;
mod tap_ebpf;
mod tap_sysfs;

pub use error::{ReadReport, ReaderError};
pub use proc_stat::read_proc_stat;
pub use proc_statm::{ProcStatm, read_proc_statm};
pub(crate) use tap_ebpf::NAME as TAP_EBPF;
pub use tap_sysfs::read_tap_stats;

use crate::config::{ConfigError, Section, Sections};
use crate::host::Host;
use crate::model::{Batch, Health, PartHealth, VmSet};

/// Reads one kind of number of all VMs.
pub trait Reader: Send {
    /// Adds to the batch what it can read. What is not there is left out; what may not be read is in the report.
    fn read(&mut self, vms: &VmSet, batch: &mut Batch) -> ReadReport;
}

/// A line of the table of readers.
#[derive(Debug)]
pub struct ReaderDef {
    pub name: &'static str,
    pub help: &'static str,
    /// Checks the section and says how to start; touches nothing.
    configure: fn(Section) -> Result<Start, ConfigError>,
}

/// Every reader, in the order in which they read. The devices come before eBPF: so the eBPF count is never older than
/// the device's, which the ledger relies on.
pub const READERS: &[ReaderDef] = &[proc_stat::DEF, proc_statm::DEF, tap_sysfs::DEF, tap_ebpf::DEF];

/// Starts a configured reader.
type Start = Box<dyn FnOnce(&Host) -> Started + Send>;

/// How a reader came up. A reader that did not is a fact to report, never the end of the daemon.
#[expect(missing_debug_implementations, reason = "a reader is a trait object")]
pub enum Started {
    Running(Box<dyn Reader>),
    Not(PartHealth),
}

/// A reader that is checked but not started.
#[expect(missing_debug_implementations, reason = "holds the start function")]
pub struct Configured {
    pub name: &'static str,
    /// `None` when switched off.
    start: Option<Start>,
}

impl Configured {
    pub fn start(self, host: &Host) -> Started {
        match self.start {
            Some(start) => start(host),
            None => Started::Not(PartHealth::new(Health::Disabled, "switched off in the configuration")),
        }
    }
}

/// Checks the sections `[readers.<name>]` against the table.
pub fn configure(mut sections: Sections) -> Result<Vec<Configured>, ConfigError> {
    let configured = READERS
        .iter()
        .map(|def| {
            let section = sections.take(def.name);
            let start = if section.enabled()? { Some((def.configure)(section)?) } else { None };
            Ok(Configured { name: def.name, start })
        })
        .collect::<Result<_, ConfigError>>()?;
    sections.none_left()?;
    Ok(configured)
}
