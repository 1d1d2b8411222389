//! What each VM on this host uses of CPU, memory and network, read from the host with no agent in the guest.

pub mod app;
pub mod cli;
pub mod config;
mod doctor;
pub mod exporters;
pub mod host;
mod http;
pub mod manager;
pub mod model;
mod procfs;
pub mod readers;
pub mod sources;

pub use model::{Hypervisor, InstanceInfo, Nic, TapStats, VmStats, build_instance_info, tap_name};
pub use readers::{ProcStatm, ReaderError, read_proc_stat, read_proc_statm, read_tap_stats};
