//! Parses the command lines of hypervisors. Pure: argv in, [`VmArgs`] out.
//!
//! Each parser follows the syntax of its hypervisor. It returns `None` for a run that is no VM: one that prints a version
//! or a list, or probes the host. Missing values are `None`, never a guess.

mod cloud_hypervisor;
mod firecracker;
mod identity;
mod long_options;
mod qemu;
mod qemu_config;
mod qemu_identity;
mod qemu_machine;
mod qemu_net;
mod qemu_options;
mod size;

use std::collections::HashSet;

use thiserror::Error;

pub use self::firecracker::FirecrackerConfig;
pub use self::identity::{Basis, Identity, Surroundings, absolute};
pub use self::qemu_net::netdev_kind;

use self::qemu_config::QemuLine;
use crate::model::{Hypervisor, UnmonitoredNic, is_device_name};
use crate::sources::shortened;
use crate::sources::values::bounded::MAX_NICS;

/// A VM by its command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmArgs {
    pub identity: Identity,
    /// Those that it has at the start.
    pub vcpus: Option<u32>,
    /// vCPUs that it may come to have, where they can be plugged in and out.
    pub max_vcpus: Option<u32>,
    pub memory_bytes: Option<u64>,
    /// TAP names; only as good as the command line, which often has a file descriptor in their place.
    pub taps: Vec<String>,
    /// Interfaces without a device that can be counted.
    pub unmonitored: Vec<UnmonitoredNic>,
    pub config_file: Option<ConfigFile>,
    /// Where it can be asked, as the hypervisor process sees it.
    pub api_socket: Option<String>,
    /// It leaves the work to a process that it forks, with the same command line.
    pub daemonizes: bool,
    /// It only has devices for a guest that Xen runs.
    pub is_xen: bool,
}

/// A config file named by a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// As the hypervisor process sees it.
    pub path: String,
    pub format: ConfigFormat,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigFormat {
    Firecracker,
    Qemu(QemuLine),
}

/// The message has the position, and never quotes the file: it may contain secrets.
#[derive(Debug, Error)]
#[error("not a {format} config ({problem} at line {line}, column {column})")]
pub struct ConfigError {
    format: &'static str,
    problem: &'static str,
    line: usize,
    column: usize,
}

impl ConfigFile {
    /// The VM with the sizes and NICs of this file.
    pub fn read(&self, content: &[u8]) -> Result<VmArgs, ConfigError> {
        match &self.format {
            ConfigFormat::Firecracker => firecracker::read_config(content),
            ConfigFormat::Qemu(line) => line.with_file(content),
        }
        .map(VmArgs::bounded)
    }
}

impl VmArgs {
    /// Without names that no device has, and with no more NICs than a VM can have, and one.
    fn bounded(mut self) -> Self {
        let mut seen = HashSet::new();
        self.taps.retain(|tap| is_device_name(tap) && seen.insert(tap.clone()));
        self.taps.truncate(MAX_NICS + 1);
        self.unmonitored.truncate(MAX_NICS + 1);
        for nic in &mut self.unmonitored {
            nic.name = shortened(&nic.name);
        }
        self
    }
}

/// `None`: this process is not a VM. `program` is the file name of its executable.
pub fn parse(hypervisor: Hypervisor, program: &str, argv: &[String]) -> Option<VmArgs> {
    match hypervisor {
        Hypervisor::Qemu => qemu::parse(program, argv),
        Hypervisor::CloudHypervisor => cloud_hypervisor::parse(argv),
        Hypervisor::Firecracker => firecracker::parse(argv),
        Hypervisor::Xen | Hypervisor::Other | Hypervisor::Program(_) => None,
    }
    .map(VmArgs::bounded)
}

#[cfg(test)]
fn argv(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn runs_that_print_or_probe_are_no_vm() {
        let qemu = [
            "-S -no-user-config -nodefaults -nographic -machine none,accel=kvm:tcg -qmp unix:/q.monitor,server=on,wait=off -daemonize",
            "-M none",
            "-machine x-remote,vfio-user=on -nographic",
            "-xen-domid 0 -xen-attach -name dom0 -nographic -M xenpv -daemonize",
            "-machine type=none",
            "-version",
            "--version",
            "-help",
            "-h",
            "-cpu help",
            "-machine help",
            "-M ?",
            "-device help",
            "-device virtio-net-pci,help",
            "-netdev help",
        ];
        let firecracker = ["--version", "--help", "--snapshot-version", "--describe-snapshot /snap"];
        for (hypervisor, lines) in [
            (Hypervisor::Qemu, &qemu[..]),
            (Hypervisor::CloudHypervisor, &["--version", "-V", "--help", "-h"]),
            (Hypervisor::Firecracker, &firecracker),
        ] {
            for line in lines {
                let argv = argv(&format!("vmm {line}"));
                assert_eq!(parse(hypervisor, "qemu-system-x86_64", &argv), None, "{line}");
            }
        }
    }

    proptest! {
        #[test]
        fn random_command_lines_never_panic(argv in prop::collection::vec(word(), 0..12)) {
            for hypervisor in [Hypervisor::Qemu, Hypervisor::CloudHypervisor, Hypervisor::Firecracker] {
                let _ = parse(hypervisor, "qemu-system-x86_64", &argv);
            }
        }
    }

    /// Known options with values close to their syntax.
    fn word() -> impl Strategy<Value = String> {
        prop_oneof![
            "-{0,2}(name|m|smp|uuid|M|machine|object|readconfig|set|avd|cores|netdev|nic|cpus|memory|memory-zone|net|platform|id|api-socket)=?",
            "-?-?(chardev|device|vdpa|vhost-user|vhost-vdpa|user|vfio-pci),?(chardev|id|path|host)?=?[a-c0:.]{0,12}",
            "(size|cpus|cores|boot|tap|type|guest)?=?[0-9.x]{0,24}[kMGTPEb]?,{0,3}[\\[\"]?",
            "\\{\"type\":\"tap\",\"ifname\":\"?[a-z]{0,3}\"\\}",
            any::<String>(),
        ]
    }
}
