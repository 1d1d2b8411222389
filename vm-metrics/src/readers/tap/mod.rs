//! Numbers of the TAPs of VMs: by netlink, from files, and by eBPF programs.

pub(super) mod ebpf;
pub(super) mod netlink;
pub(super) mod procfs;
pub(super) mod sysfs;
