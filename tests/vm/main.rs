//! The real daemon monitors real QEMU guests on real TAPs.
//!
//! The guests run Debian's kernel under TCG. Needs root.

#![cfg(feature = "ebpf")]
#![expect(clippy::unwrap_used, reason = "a test panics with the place where it happened")]

mod billing;
mod cgroup;
mod firecracker;
mod kinds;
mod libvirt;
mod options;
mod prometheus;
mod qemu;
mod qmp;
mod queries;
mod snapshot;
mod systemd;
mod vcpus;
