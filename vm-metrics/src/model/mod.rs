//! The words of the project: what a VM is, what was read of it, what is published. No I/O and no clock.

mod vm;

pub use vm::{Hypervisor, InstanceInfo, Nic, ProcessId, VmSet, build_instance_info, tap_name};
