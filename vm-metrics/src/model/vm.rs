//! A VM with its process and its network interfaces, as a source lists it.

#![warn(missing_docs)]

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::{ProgramName, UnmonitoredNic, VmState};

/// A VM as a source lists it, with all that readers need. It may have several network interfaces; [`build_instance_info`]
/// makes the one that follows from the id.
///
/// ```
/// use vm_metrics::{InstanceInfo, Nic};
///
/// let vm = InstanceInfo {
///     id: "01234567".into(),
///     hypervisor_pid: Some(4242),
///     nics: vec![Nic::local("tap0"), Nic::local("tap1")],
///     ..InstanceInfo::default()
/// };
/// assert_eq!(vm.allocated_vcpus, None, "not known, which is not 0");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceInfo {
    /// Unique on this host; becomes the label `instance_id`.
    pub id: String,
    /// For people; becomes the label `instance_name`.
    pub name: String,
    /// The hypervisor.
    pub hypervisor: Hypervisor,
    /// The hypervisor process; `None` when the VM does not run.
    pub hypervisor_pid: Option<u32>,
    /// The user that the hypervisor process runs as; `None` when the source does not know.
    pub uid: Option<u32>,
    /// The network interfaces, in the order the guest sees them.
    pub nics: Vec<Nic>,
    /// Network interfaces without a device on the host, and so without numbers.
    pub unmonitored: Vec<UnmonitoredNic>,
    /// Whether it has network interfaces that are in neither list, so that no sum over them is known.
    pub has_more_nics: bool,
    /// Its vCPUs; `None` when the source does not know.
    pub allocated_vcpus: Option<u32>,
    /// Limit of hot-plugged vCPUs, if [`allocated_vcpus`](Self::allocated_vcpus) is the number at the start. Then the number
    /// of vCPU threads tells how many are plugged in.
    pub max_vcpus: Option<u32>,
    /// Bytes, hot-plugged memory included; `None` when the source does not know.
    pub allocated_memory_bytes: Option<u64>,
    /// The part of the allocated bytes that its balloon leaves to the guest; `None` without a balloon, or when the source
    /// does not know.
    pub actual_memory_bytes: Option<u64>,
    /// `None` when the source does not know.
    pub state: Option<VmState>,
    /// The owner of the VM, by the orchestrator's name; becomes the label `project` of `vm_info`.
    pub project: Option<String>,
    /// The Kubernetes namespace, according to its process.
    pub namespace: Option<String>,
    /// The UID of the Kubernetes pod in which its process runs, by its control group.
    pub pod_uid: Option<String>,
    /// Its tags from the orchestrator, by name; only the names in the configuration. Becomes `vm_tag_info`.
    pub tags: BTreeMap<String, String>,
    /// The orchestrator's limits of its input and output.
    pub network_limits: NetworkLimits,
    /// The orchestrator's attempts to start it again since it last ran well; `None` if it makes none.
    pub restart_attempts: Option<u64>,
}

/// Limits of a VM's network, guest's view, in bytes per second; `None` without a limit, or if it is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkLimits {
    /// Limit of its input.
    pub rx_bytes_per_second: Option<u64>,
    /// Limit of its output.
    pub tx_bytes_per_second: Option<u64>,
}

/// A network interface of a VM, named by its device on the host.
///
/// ```
/// assert_eq!(vm_metrics::Nic::local("tap0").netns, None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nic {
    /// Name of the TAP device on the host, for example `hype-01234567`.
    pub tap: String,
    /// The inode of the network namespace that the device is in, when it is not the one that this process is in.
    pub netns: Option<u64>,
}

impl Nic {
    /// A device in the network namespace of this process.
    pub fn local(tap: impl Into<String>) -> Self {
        Self { tap: tap.into(), netns: None }
    }
}

/// A name that the kernel accepts for a network device. Anything else must not become a path in sysfs.
pub(crate) fn is_device_name(name: &str) -> bool {
    const IFNAMSIZ: usize = 16;
    let allowed = |byte: u8| byte != b'/' && byte != b':' && byte != 0 && !byte.is_ascii_whitespace();
    !name.is_empty() && name.len() < IFNAMSIZ && name != "." && name != ".." && name.bytes().all(allowed)
}

/// What runs a VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hypervisor {
    /// QEMU, with KVM or without.
    Qemu,
    /// Cloud Hypervisor.
    CloudHypervisor,
    /// Firecracker.
    Firecracker,
    /// Xen; the process is a QEMU that only has devices for the guest.
    Xen,
    /// Another one, or one that the source does not name.
    #[default]
    Other,
    /// Another one, by the file name of its program.
    #[serde(skip)]
    Program(ProgramName),
}

impl Hypervisor {
    /// As it is in labels and in configurations.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Qemu => "qemu",
            Self::CloudHypervisor => "cloud-hypervisor",
            Self::Firecracker => "firecracker",
            Self::Xen => "xen",
            Self::Other => "other",
            Self::Program(name) => name.as_str(),
        }
    }
}

impl Serialize for Hypervisor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for Hypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Every VM that the sources know at one tick. Ids are unique.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmSet {
    /// In no order of meaning.
    pub vms: Vec<InstanceInfo>,
}

impl VmSet {
    /// The hypervisor processes.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.vms.iter().filter_map(|vm| vm.hypervisor_pid)
    }

    /// The network namespaces, other than that of this process, in which VMs have interfaces, with the processes of those
    /// VMs.
    pub fn foreign_netns(&self) -> HashMap<u64, Vec<u32>> {
        let mut found: HashMap<u64, Vec<u32>> = HashMap::new();
        for vm in &self.vms {
            for netns in vm.nics.iter().filter_map(|nic| nic.netns) {
                found.entry(netns).or_default().extend(vm.hypervisor_pid);
            }
        }
        found
    }

    /// The network interfaces of all VMs.
    pub fn nics(&self) -> impl Iterator<Item = &Nic> {
        self.vms.iter().flat_map(|vm| &vm.nics)
    }
}

/// Creates an [`InstanceInfo`] with a single TAP from instance metadata.
///
/// The TAP name follows [`tap_name`]; without network there is none. Zero vCPUs or zero memory mean "not known"; memory is in
/// bytes, hot-plugged memory included. It asks nobody and cannot fail: whether there is such a process or device shows
/// when they are read.
///
/// ```
/// let vm = vm_metrics::build_instance_info("01234567ABCD", "web", Some(42), true, 2, 1 << 30);
/// assert_eq!(vm.nics[0].tap, "hype-01234567");
/// ```
///
/// With a rule of one's own for the name ([`InstanceListerAdapter::with_tap_name`] has one for a whole source):
///
/// ```
/// use vm_metrics::{InstanceInfo, Nic, build_instance_info};
///
/// let id = "01234567ABCD";
/// let vm = InstanceInfo {
///     nics: vec![Nic::local(format!("vm-{id}"))],
///     ..build_instance_info(id, "web", Some(42), false, 2, 1 << 30)
/// };
/// assert_eq!(vm.nics[0].tap, "vm-01234567ABCD");
/// ```
///
/// [`InstanceListerAdapter::with_tap_name`]: crate::InstanceListerAdapter::with_tap_name
pub fn build_instance_info(
    id: &str,
    name: &str,
    pid: Option<u32>,
    network_enabled: bool,
    vcpus: u32,
    memory_bytes: u64,
) -> InstanceInfo {
    let nics = if network_enabled { vec![Nic::local(tap_name(id))] } else { Vec::new() };
    InstanceInfo {
        id: id.to_owned(),
        name: name.to_owned(),
        hypervisor: Hypervisor::Other,
        hypervisor_pid: pid,
        nics,
        allocated_vcpus: (vcpus > 0).then_some(vcpus),
        allocated_memory_bytes: (memory_bytes > 0).then_some(memory_bytes),
        ..InstanceInfo::default()
    }
}

/// The name of a VM's TAP by its id: `hype-` and the first eight characters, in lower case.
///
/// ```
/// assert_eq!(vm_metrics::tap_name("01234567ABCD"), "hype-01234567");
/// ```
pub fn tap_name(id: &str) -> String {
    let short: String = id.chars().take(8).collect();
    format!("hype-{}", short.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tap_name_is_short_and_lower_case() {
        assert_eq!(tap_name("ABCDEFGHIJ"), "hype-abcdefgh");
        assert_eq!(tap_name("Ab"), "hype-ab");
        assert_eq!(tap_name(""), "hype-");
    }

    #[test]
    fn allocations_of_zero_are_unknown() {
        let vm = build_instance_info("a", "b", None, false, 0, 0);
        assert_eq!(vm.nics, []);
        assert_eq!(vm.allocated_vcpus, None);
        assert_eq!(vm.allocated_memory_bytes, None);
    }
}
