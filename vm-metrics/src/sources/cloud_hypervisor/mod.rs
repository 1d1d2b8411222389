//! Source `cloud_hypervisor`: asks Cloud Hypervisor's API by `GET /api/v1/vm.info`.
//!
//! The socket is the one on the command line of a VMM that was found. The VM may be created long after its VMM has started.

use hyper::StatusCode;
use serde::Deserialize;
use tokio::net::UnixStream;

use super::vmm_api::{FoundVmms, Http, QueryError, QueryFuture, VmmInfo};
use super::{Precedence, SourceDef, shortened};
use crate::model::{Hypervisor, InstanceInfo, Nic, UnmonitoredKind, UnmonitoredNic, VmState, is_device_name};
use crate::sources::values::bounded;
use crate::sources::values::pci::pci_address;

const VM_INFO: &str = "/api/v1/vm.info";

pub const SOURCE: SourceDef = SourceDef {
    name: "cloud_hypervisor",
    help: "the API of the Cloud Hypervisor processes that were found",
    precedence: Precedence::Vmm,
    config: r#"# Sizes, NICs and state of VMs, from the API socket that the command line of Cloud Hypervisor names.
[sources.cloud_hypervisor]
enabled = "auto"
"#,
    configure: |section, context| FoundVmms::configure(Hypervisor::CloudHypervisor, query, section, context),
};

pub(super) fn query(stream: UnixStream) -> QueryFuture {
    Box::pin(Http::over(stream, async |mut http| {
        let (status, body) = http.get(VM_INFO).await?;
        match status {
            StatusCode::OK => vmm(&body),
            _ if is_not_created(status, &body) => Ok(VmmInfo::not_started()),
            _ => Err(QueryError::status(VM_INFO, status)),
        }
    }))
}

/// Versions before 2026 answer 500 with the reason in the body.
fn is_not_created(status: StatusCode, body: &[u8]) -> bool {
    let says = || String::from_utf8_lossy(body).to_lowercase().contains("not created");
    status == StatusCode::NOT_FOUND || status == StatusCode::INTERNAL_SERVER_ERROR && says()
}

fn vmm(body: &[u8]) -> Result<VmmInfo, QueryError> {
    let vm: VmInfoBody = serde_json::from_slice(body).map_err(|error| QueryError::json(VM_INFO, &error))?;
    let VmConfigBody { cpus, memory, net, balloon, devices, vdpa } = vm.config;
    let mut nets = net.map(|List(nets)| nets).unwrap_or_default();
    let has_more_nics = nets.len() > bounded::MAX_NICS;
    nets.truncate(bounded::MAX_NICS);
    let unmonitored = unmonitored(&nets, &devices.unwrap_or_default().0, &vdpa.unwrap_or_default().0);
    let taps = nets.into_iter().filter_map(|net| net.tap);
    let info = InstanceInfo {
        hypervisor: Hypervisor::CloudHypervisor,
        nics: taps.filter(|tap| is_device_name(tap)).map(Nic::local).collect(),
        unmonitored,
        has_more_nics,
        allocated_vcpus: Some(cpus.boot_vcpus),
        allocated_memory_bytes: memory.total(),
        actual_memory_bytes: balloon.and(vm.memory_actual_size).filter(|size| bounded::is_memory(*size)),
        state: state(&vm.state),
        ..InstanceInfo::default()
    };
    Ok(VmmInfo { info, unfinished: matches!(vm.state.as_str(), "Created" | "Shutdown") })
}

/// PCI devices are listed whatever they are.
fn unmonitored(nets: &[Net], devices: &[Device], vdpa: &[Device]) -> Vec<UnmonitoredNic> {
    let vhost_user = nets.iter().filter(|net| net.vhost_user).map(|net| {
        let name = net.vhost_socket.as_ref().or(net.id.as_ref()).map_or("?", String::as_str);
        UnmonitoredNic { kind: UnmonitoredKind::VhostUser, name: shortened(name) }
    });
    let vfio = devices.iter().filter_map(|device| pci_address(&device.path));
    let vfio = vfio.map(|name| UnmonitoredNic { kind: UnmonitoredKind::Vfio, name });
    let vdpa = vdpa.iter().filter_map(|device| device.path.rsplit('/').next());
    let vdpa = vdpa.map(|name| UnmonitoredNic { kind: UnmonitoredKind::VhostVdpa, name: shortened(name) });
    vhost_user.chain(vfio).chain(vdpa).collect()
}

/// `None` for a word that is not in its description.
fn state(said: &str) -> Option<VmState> {
    match said {
        "Created" => Some(VmState::NotStarted),
        "Running" => Some(VmState::Running),
        "Paused" | "BreakPoint" => Some(VmState::Paused),
        "Shutdown" => Some(VmState::Stopped),
        _ => None,
    }
}

#[derive(Deserialize)]
struct VmInfoBody {
    config: VmConfigBody,
    state: String,
    memory_actual_size: Option<u64>,
}

#[derive(Deserialize)]
struct VmConfigBody {
    cpus: Cpus,
    memory: Memory,
    net: Option<List<Net>>,
    balloon: Option<Balloon>,
    devices: Option<List<Device>>,
    vdpa: Option<List<Device>>,
}

/// A resize changes it, in spite of its name.
#[derive(Deserialize)]
struct Cpus {
    #[serde(deserialize_with = "bounded::vcpus")]
    boot_vcpus: u32,
}

/// Of the whole VM, or of one zone. `hotplug_size` is only room for more.
#[derive(Deserialize)]
struct Memory {
    #[serde(deserialize_with = "bounded::memory_bytes")]
    size: u64,
    hotplugged_size: Option<u64>,
    zones: Option<Vec<Memory>>,
}

#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
struct List<T>(#[serde(deserialize_with = "bounded::first_nics")] Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

#[derive(Deserialize)]
struct Net {
    tap: Option<String>,
    #[serde(default)]
    vhost_user: bool,
    vhost_socket: Option<String>,
    id: Option<String>,
}

/// A PCI device in sysfs, or a vDPA device.
#[derive(Deserialize)]
struct Device {
    path: String,
}

#[derive(Deserialize)]
struct Balloon {}

impl Memory {
    /// `None` where it is more than a VM has.
    fn total(&self) -> Option<u64> {
        let own = self.size.checked_add(self.hotplugged_size.unwrap_or(0))?;
        let total = self.zones.iter().flatten().try_fold(own, |sum, zone| sum.checked_add(zone.total()?))?;
        bounded::is_memory(total).then_some(total)
    }
}

#[cfg(test)]
mod tests;
