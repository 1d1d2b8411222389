//! What each VM on this host uses of CPU, memory and network, read from the host with no agent in the guest.
//!
//! [`Manager`] is where to begin: it asks a source which VMs there are, reads what they use, and keeps every counter one
//! line. The daemon `vm-metrics` is this library with a configuration file, a thread that ticks and an HTTP server.
//!
//! ```text
//! sources ──VmSet──▶ readers ──Batch──▶ Manager (merge) ──Arc<Snapshot>──▶ exporters
//! who exists         what they do       what was before                    who looks
//! ```
//!
//! Network numbers in [`VmStats`] are the **guest's** view: rx is what it receives, tx what it sends. Only
//! [`read_tap_stats`] speaks the host's. What was not measured is `None`, never 0.

#[doc(hidden)]
pub mod app;
#[doc(hidden)]
pub mod cli;
pub mod config;
mod doctor;
mod documents;
pub mod exporters;
pub mod host;
#[doc(hidden)]
pub mod http;
mod limits;
mod local_daemon;
#[doc(hidden)]
pub mod log;
pub mod manager;
pub mod model;
mod netns;
mod own_dir;
mod patient;
mod procfs;
pub mod readers;
mod signals;
mod snapshot;
pub mod sources;
mod version;

pub use app::StartError;
pub use config::{Config, ConfigError};
pub use manager::{CollectError, Manager, ManagerError};
pub use model::{
    Hypervisor, InstanceInfo, Nic, Snapshot, TapStats, VmState, VmStats, build_instance_info, tap_name,
};
/// ```
/// // The loopback receives what it transmits; of a TAP, `rx` is what its VM has sent.
/// let loopback = vm_metrics::read_tap_stats("lo")?;
/// assert!(loopback.rx_bytes >= loopback.rx_packets);
/// assert!(vm_metrics::read_tap_stats("no-such-tap").is_err());
/// # Ok::<(), vm_metrics::ReaderError>(())
/// ```
#[doc(inline)]
pub use readers::read_tap_stats;
pub use readers::{ProcStatm, ReaderError, read_proc_stat, read_proc_statm};
pub use sources::{
    InstanceData, InstanceListerAdapter, InstanceManager, InstanceManagerAdapter, InstanceSource,
    InstanceUtilizationInfo, Listing, SourceError,
};
