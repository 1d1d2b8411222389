//! CPU, memory and network use of each VM, read from the host without an agent.
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
//!
//! # Features
//!
//! | feature | by default | what it adds | what it needs |
//! |---|---|---|---|
//! | `ebpf` | yes | the programs that count packets on TAPs; the build script builds them into the library | rust-src and bpf-linker |
//! | `otel` | yes | instruments on an OpenTelemetry meter ([`otel`]) | |
//! | `daemon` | no | the program `vm-metrics`: commands, log, HTTP server, the push over OTLP; includes `otel` | |
//!
//! Without `ebpf` the numbers of TAPs are the devices' own. What is missing for `ebpf` the build says, with the commands that
//! install it:
//!
//! ```text
//! rustup component add rust-src
//! cargo install bpf-linker --version 0.10.4 --locked --no-default-features --features rust-llvm-22
//! ```

#![cfg_attr(
    not(feature = "daemon"),
    expect(dead_code, unused_imports, reason = "the daemon uses what the library alone does not")
)]

#[doc(hidden)]
pub mod app;
#[doc(hidden)]
#[cfg(feature = "daemon")]
pub mod cli;
mod config;
#[cfg(feature = "daemon")]
mod doctor;
#[cfg(feature = "daemon")]
mod documents;
mod exporters;
mod host;
#[doc(hidden)]
#[cfg(feature = "daemon")]
pub mod http;
#[cfg(feature = "daemon")]
mod limits;
#[cfg(feature = "daemon")]
mod local_daemon;
#[doc(hidden)]
#[cfg(feature = "daemon")]
pub mod log;
mod manager;
mod model;
mod net;
mod own_dir;
mod patient;
mod procfs;
mod readers;
#[cfg(feature = "daemon")]
mod signals;
#[cfg(feature = "daemon")]
mod snapshot;
mod sources;
#[cfg(feature = "daemon")]
mod terminal;
#[cfg(feature = "daemon")]
mod version;

pub use config::{Config, ConfigError};
#[cfg(feature = "otel")]
pub use exporters::otel;
#[doc(hidden)]
#[cfg(feature = "daemon")]
pub use exporters::prometheus::{Format, render};
pub use manager::{CollectError, Manager, ManagerError, StartError, TickThread, Ticker, Waker};
pub use model::{
    AttachMode, CgroupStats, ComponentHealth, ComponentKind, ComponentRun, ComponentTotals, DirectionStats,
    EarlierCounts, EbpfStats, EndReason, FrameCounts, Health, Hypervisor, InstanceInfo, Lifecycle,
    LifecycleCounts, MissedTicks, NetworkLimits, Nic, NicKind, NicSince, NicSource, NicStats, Overuse,
    PressureStats, ProcessStats, ProgramName, Snapshot, TapStats, Traffic, UnmonitoredKind, UnmonitoredNic,
    VcpuStats, VmSince, VmState, VmStats, build_instance_info, tap_name,
};
pub use net::NetError;
/// The version that [`Manager::initialize_otel`] takes a meter of.
#[cfg(feature = "otel")]
pub use opentelemetry;
pub use procfs::ParseError;
pub use readers::Purpose;
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
