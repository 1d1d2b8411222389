//! Sources list the VMs of this host; readers measure them.
//!
//! A new source is a file with its `SOURCE`, its `mod` line and its line in [`SOURCES`] here, and its section in
//! `docs/sources.md`. The tests write the rest of the documents from its entry, with `UPDATE_GOLDEN=1`.

mod adapters;
mod cloud_hypervisor;
pub(crate) mod declared;
mod error;
mod files;
mod firecracker;
mod hypeman;
mod libvirt;
mod merge;
mod polling;
mod proc_scan;
mod process;
pub mod push;
mod qemu_qmp;
mod static_list;
mod values;
mod vm_dir;
mod vmm_api;

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

pub use self::adapters::{
    InstanceData, InstanceListerAdapter, InstanceManager, InstanceManagerAdapter, InstanceUtilizationInfo,
};
pub use self::error::SourceError;
use self::files::operators::Operators;
use self::files::process_path::Workers;
pub(crate) use self::merge::evidence::ProcessTable;
pub use self::merge::precedence::Precedence;
use self::polling::SourceEntry;
pub use self::polling::{SourceReport, Sources};
use self::process::lookup::ProcessLookup;
use self::push::Inbox;
use crate::config::{ConfigError, Section, Sections, Switch};
use crate::host::Host;
use crate::model::{Excess, Hypervisor, InstanceInfo, Nic, Trust};

/// All sources. Of several that list one VM, [`Precedence`] decides; within a precedence, the earlier one wins.
pub const SOURCES: &[SourceDef] = &[
    static_list::SOURCE,
    vm_dir::SOURCE,
    push::SOURCE,
    hypeman::SOURCE,
    libvirt::SOURCE,
    cloud_hypervisor::SOURCE,
    firecracker::SOURCE,
    qemu_qmp::SOURCE,
    proc_scan::SOURCE,
];

/// A line of the table of sources.
#[derive(Debug)]
pub struct SourceDef {
    /// Names the source in metrics and in health, and its section `[sources.<name>]`.
    pub name: &'static str,
    pub help: &'static str,
    pub precedence: Precedence,
    /// Its section in `default.toml`, where every key stands with its default.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test compares it with default.toml"))]
    pub config: &'static str,
    /// Makes the source from its section; `None` when it has nothing to list. Touches nothing.
    configure: Configure,
}

type Configure = fn(&Section, &SourceContext) -> Result<Option<Box<dyn Source>>, ConfigError>;

/// How long a tick waits for a listing. Only a source that asks others takes so long.
const LIST_DEADLINE: Duration = Duration::from_secs(2);

/// Everything that a source is made with.
#[derive(Clone, Debug, Default)]
pub struct SourceContext {
    pub host: Host,
    pub trust: Trust,
    /// How long the id of a VM that has ended is kept from other users' processes.
    pub retention: Duration,
    workers: Workers,
    operators: Operators,
    processes: ProcessLookup,
}

impl SourceContext {
    pub fn new(host: Host, trust: Trust, retention: Duration) -> Self {
        let operators = Operators::new(trust.clone());
        let workers = Workers::new(trust.clone(), operators.clone());
        let processes = ProcessLookup::new(host.clone(), trust.clone());
        Self { host, trust, retention, workers, operators, processes }
    }
}

/// Checks the sections `[sources.<name>]` against the table.
pub fn configure(mut sections: Sections, context: &SourceContext) -> Result<Sources, ConfigError> {
    let mut sources = Sources::within(context);
    for def in SOURCES {
        let section = sections.take(def.name);
        // A section that is switched off is checked all the same: a mistake in it must not wait.
        let source = (def.configure)(&section, context)?;
        match (section.switch()?, source) {
            (Switch::Off, _) | (_, None) => sources.switched_off.push(def.name),
            (switch, Some(source)) => {
                sources.sources.push(SourceEntry::new(def.name, def.precedence, switch, source));
            }
        }
    }
    sections.none_left()?;
    sources.sources.sort_by_key(SourceEntry::fact_rank);
    Ok(sources)
}

/// Knows which VMs run on this host.
///
/// ```
/// use vm_metrics::{InstanceSource, Listing, Manager, SourceError, build_instance_info};
///
/// /// One VM, this process.
/// struct Own;
///
/// impl InstanceSource for Own {
///     fn list_running_instances_for_metrics(&mut self) -> Result<Listing, SourceError> {
///         Ok(vec![build_instance_info("me", "me", Some(std::process::id()), false, 1, 0)].into())
///     }
/// }
///
/// let manager = Manager::new();
/// manager.set_instance_source(Own);
/// assert_eq!(manager.collect_all()?[0].allocated_vcpus, Some(1));
/// # Ok::<(), vm_metrics::CollectError>(())
/// ```
pub trait InstanceSource: Send {
    /// Every VM that runs now. A VM that cannot be read is a problem in the listing, and hides no other VM.
    ///
    /// # Errors
    /// When it cannot list VMs at all. The former listing then counts for 30 seconds more.
    fn list_running_instances_for_metrics(&mut self) -> Result<Listing, SourceError>;

    /// How long a tick waits for the listing, which is made on its own thread. After a wait in vain ticks use the former
    /// listing, and wait no more until that call has returned. The health shows since when it hangs.
    ///
    /// ```
    /// use vm_metrics::InstanceSource;
    ///
    /// assert_eq!(Vec::new().deadline(), std::time::Duration::from_secs(2));
    /// ```
    fn deadline(&self) -> Duration {
        LIST_DEADLINE
    }
}

/// A source of the table [`SOURCES`], or that of a program.
pub(crate) trait Source: Send {
    /// Lists every VM that runs now; see [`InstanceSource`].
    fn list(&mut self) -> Result<Listing, SourceError>;

    /// How long a tick waits for the listing.
    fn deadline(&self) -> Duration {
        LIST_DEADLINE
    }

    /// The VMMs that other sources have found in this round, for a source that asks VMMs.
    fn found(&mut self, _sockets: &[ApiSocket]) {}

    /// The processes that other sources have named in this round, for a source that looks at processes.
    fn named(&mut self, _pids: &[u32]) {}

    /// A socket that the daemon serves for this source; one-shot commands serve none.
    fn inbox(&self) -> Option<Inbox> {
        None
    }
}

/// The source of a program that embeds the library.
pub(crate) struct ProgramSource(pub(crate) Box<dyn InstanceSource>);

impl Source for ProgramSource {
    fn list(&mut self) -> Result<Listing, SourceError> {
        self.0.list_running_instances_for_metrics()
    }

    fn deadline(&self) -> Duration {
        self.0.deadline()
    }
}

/// Those that are always there.
impl InstanceSource for Vec<InstanceInfo> {
    fn list_running_instances_for_metrics(&mut self) -> Result<Listing, SourceError> {
        Ok(self.clone().into())
    }
}

/// The VMs of one source, and its problems.
#[derive(Debug, Default)]
pub struct Listing {
    /// An empty id or name is one that the source does not know.
    pub instances: Vec<InstanceInfo>,
    /// VMs without their process. Their values count for a VM that another source lists under the id.
    pub(crate) ended: Vec<InstanceInfo>,
    pub problems: Vec<SourceError>,
    /// Where their VMMs can be asked for more.
    pub(crate) sockets: Vec<ApiSocket>,
    /// Facts of the kernel about processes that may be VMs.
    pub(crate) processes: ProcessTable,
    /// Demands of users beyond their share.
    pub(crate) overuse: Excess,
}

impl From<Vec<InstanceInfo>> for Listing {
    fn from(instances: Vec<InstanceInfo>) -> Self {
        Self { instances, ..Self::default() }
    }
}

/// The API socket of a VMM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiSocket {
    pub hypervisor: Hypervisor,
    /// With the start time, the process: no other is to answer.
    pub pid: u32,
    pub start_ticks: u64,
    /// As the process sees it, which may be in a chroot.
    pub path: PathBuf,
    /// When they change, much may have.
    pub nics: Vec<Nic>,
}

/// The options of a source that has one directory.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DirConfig {
    dir: Option<PathBuf>,
}

/// The configured path of a source, else the default. A fixture host has no default, which would be the path of another
/// host.
fn configured_path(host: &Host, configured: Option<PathBuf>, default: &str) -> Option<PathBuf> {
    configured.or_else(|| host.is_this_kernel().then(|| PathBuf::from(default)))
}

/// Names become labels of every series of the VM. Longer ones are cut.
const MAX_NAME_CHARS: usize = 256;

fn shortened(name: &str) -> String {
    name.chars().take(MAX_NAME_CHARS).collect()
}

#[cfg(test)]
mod tests;
