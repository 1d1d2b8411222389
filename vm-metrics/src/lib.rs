//! What each VM on this host uses of CPU, memory and network, read from the host with no agent in the guest.

pub mod host;
pub mod model;
pub mod procfs;
pub mod sources;

pub use model::{Hypervisor, InstanceInfo, Nic, ProcessId, build_instance_info, tap_name};
