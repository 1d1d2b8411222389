//! What a hypervisor's command line says of its VM. Pure: argv in, [`VmArgs`] out.
//!
//! Each parser follows its hypervisor's own rules of reading, and answers `None` for a run that is no VM: one
//! that prints a version or a list, or probes what the host can do. What the command line does not say is
//! `None`, never a guess.

mod cloud_hypervisor;
mod firecracker;
mod long_options;
mod pci;
mod qemu;
mod qemu_net;
mod qemu_options;
mod size;

pub use firecracker::read_config;
pub use pci::pci_address;
pub use qemu_net::netdev_kind;

use crate::model::{Hypervisor, UncountedNic};

/// A VM, as far as its command line tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmArgs {
    /// `None` when the command line has nothing that tells this VM from another.
    pub id: Option<String>,
    pub name: Option<String>,
    pub vcpus: Option<u32>,
    pub memory_bytes: Option<u64>,
    /// TAP names; only as good as the command line, which often has a file descriptor in their place.
    pub taps: Vec<String>,
    /// What is no TAP, nor anything else that can be counted.
    pub uncounted: Vec<UncountedNic>,
    /// A file that says more, as the hypervisor process sees it.
    pub config_file: Option<String>,
    /// Where it can be asked, as the hypervisor process sees it.
    pub api_socket: Option<String>,
    /// It leaves the work to a process that it forks, with the same command line.
    pub daemonizes: bool,
}

/// `None`: this process is not a VM.
pub fn parse(hypervisor: Hypervisor, argv: &[String]) -> Option<VmArgs> {
    match hypervisor {
        Hypervisor::Qemu => qemu::parse(argv),
        Hypervisor::CloudHypervisor => cloud_hypervisor::parse(argv),
        Hypervisor::Firecracker => firecracker::parse(argv),
        Hypervisor::Other | Hypervisor::Program(_) => None,
    }
}

/// The arguments in `/proc/<pid>/cmdline`, where a NUL ends each.
pub fn split(content: &[u8]) -> Vec<String> {
    let content = content.strip_suffix(b"\0").unwrap_or(content);
    if content.is_empty() {
        return Vec::new();
    }
    content.split(|byte| *byte == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
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
    fn arguments_end_with_a_nul() {
        assert_eq!(split(b""), [""; 0]);
        assert_eq!(split(b"kvm\0-m\0\x002\0"), ["kvm", "-m", "", "2"]);
        assert_eq!(split(b"cut"), ["cut"]);
        assert_eq!(split(b"kvm\0-name\0a\xffb\0"), ["kvm", "-name", "a\u{fffd}b"]);
    }

    proptest! {
        #[test]
        fn random_command_lines_never_panic(argv in prop::collection::vec(word(), 0..12)) {
            for hypervisor in [Hypervisor::Qemu, Hypervisor::CloudHypervisor, Hypervisor::Firecracker] {
                let _ = parse(hypervisor, &argv);
            }
        }
    }

    /// Options that are known, and values that come near to what they take.
    fn word() -> impl Strategy<Value = String> {
        prop_oneof![
            "-{0,2}(name|m|smp|uuid|M|machine|netdev|nic|cpus|memory|memory-zone|net|platform|id|api-socket)=?",
            "-?-?(chardev|device|vdpa|vhost-user|vhost-vdpa|user|vfio-pci),?(chardev|id|path|host)?=?[a-c0:.]{0,12}",
            "(size|cpus|cores|boot|tap|type|guest)?=?[0-9.x]{0,24}[kMGTPEb]?,{0,3}[\\[\"]?",
            "\\{\"type\":\"tap\",\"ifname\":\"?[a-z]{0,3}\"\\}",
            any::<String>(),
        ]
    }
}
