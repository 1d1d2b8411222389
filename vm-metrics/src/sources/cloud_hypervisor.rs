//! Cloud Hypervisor's API: `GET /api/v1/vm.info`, the VM as it is now, with what was plugged in.
//!
//! The socket is the one on the command line of a VMM that was found. The VM may be created long after its VMM has started.

use std::mem;

use hyper::StatusCode;
use serde::Deserialize;
use tokio::net::UnixStream;

use super::vmm_api::{Http, QueryError, QueryFuture, VmmApi, VmmInfo};
use super::{ApiSocket, Listing, Precedence, Source, SourceDef, SourceError, shortened};
use crate::host::Host;
use crate::model::{Hypervisor, InstanceInfo, Nic, UncountedKind, UncountedNic, VmState, is_device_name};
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
    configure: |section, context| {
        section.no_options()?;
        let (host, api) = (context.host.clone(), VmmApi::new(context, query));
        Ok(Some(Box::new(CloudHypervisor { host, api, sockets: Vec::new() })))
    },
};

#[derive(Debug)]
struct CloudHypervisor {
    host: Host,
    api: VmmApi,
    sockets: Vec<ApiSocket>,
}

impl Source for CloudHypervisor {
    fn found(&mut self, sockets: &[ApiSocket]) {
        let ours = sockets.iter().filter(|socket| socket.hypervisor == Hypervisor::CloudHypervisor);
        self.sockets = ours.cloned().collect();
    }

    fn list(&mut self) -> Result<Listing, SourceError> {
        let mut listing = self.api.list_found(&self.sockets)?;
        for vm in &mut listing.instances {
            let has_more;
            (vm.uncounted, has_more) = bounded::uncounted(&self.host, mem::take(&mut vm.uncounted));
            vm.has_more_nics |= has_more;
        }
        Ok(listing)
    }
}

pub(super) fn query(stream: UnixStream) -> QueryFuture {
    Box::pin(Http::over(stream, async |mut http| {
        let (status, body) = http.get(VM_INFO).await?;
        match status {
            StatusCode::OK => vmm(&body),
            _ if is_not_created(status, &body) => Ok(VmmInfo::not_started()),
            _ => Err(QueryError::Response(format!("GET {VM_INFO}: {status}"))),
        }
    }))
}

/// Versions before 2026 answer 500 and say it in the body.
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
    let uncounted = uncounted(&nets, &devices.unwrap_or_default().0, &vdpa.unwrap_or_default().0);
    let taps = nets.into_iter().filter_map(|net| net.tap);
    let info = InstanceInfo {
        hypervisor: Hypervisor::CloudHypervisor,
        nics: taps.filter(|tap| is_device_name(tap)).map(Nic::local).collect(),
        uncounted,
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
fn uncounted(nets: &[Net], devices: &[Device], vdpa: &[Device]) -> Vec<UncountedNic> {
    let vhost_user = nets.iter().filter(|net| net.vhost_user).map(|net| {
        let name = net.vhost_socket.as_ref().or(net.id.as_ref()).map_or("?", String::as_str);
        UncountedNic { kind: UncountedKind::VhostUser, name: shortened(name) }
    });
    let vfio = devices.iter().filter_map(|device| pci_address(&device.path));
    let vfio = vfio.map(|name| UncountedNic { kind: UncountedKind::Vfio, name });
    let vdpa = vdpa.iter().filter_map(|device| device.path.rsplit('/').next());
    let vdpa = vdpa.map(|name| UncountedNic { kind: UncountedKind::VhostVdpa, name: shortened(name) });
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
mod tests {
    use super::super::vmm_api::tests::{StandIn, answer};
    use super::*;

    const MIB: u64 = 1 << 20;

    /// As Cloud Hypervisor's serializer writes it: every field, absent ones as null.
    const RUNNING: &str = r#"{"config":{"cpus":{"boot_vcpus":2,"max_vcpus":8,"topology":null,"kvm_hyperv":false,
        "max_phys_bits":46,"affinity":null,"features":{"amx":false}},"memory":{"size":1073741824,"mergeable":false,
        "hotplug_method":"VirtioMem","hotplug_size":3221225472,"hotplugged_size":536870912,"shared":true,
        "hugepages":false,"hugepage_size":null,"prefault":false,"zones":null,"thp":true},
        "payload":{"firmware":null,"kernel":"/vmlinux","cmdline":"console=hvc0","initramfs":null},
        "rate_limit_groups":null,"disks":[{"path":"/overlay.raw","readonly":false,"id":"_disk0"}],
        "net":[{"tap":"hype-tz4a98xx","ip":"192.168.249.1","mask":"255.255.255.0","mac":"02:00:00:4a:1c:9e",
        "host_mac":"5e:00:00:00:00:01","mtu":null,"iommu":false,"num_queues":2,"queue_size":256,"vhost_user":false,
        "vhost_socket":null,"vhost_mode":"Client","id":"_net1","fds":null,"rate_limiter_config":null,"pci_segment":0,
        "offload_tso":true,"offload_ufo":true,"offload_csum":true},{"tap":null,"vhost_user":true,"id":"_net2"}],
        "rng":{"src":"/dev/urandom","iommu":false},"balloon":null,"fs":null,"pmem":null,
        "serial":{"file":null,"mode":"Null","iommu":false,"socket":null},"platform":null},
        "state":"Running","memory_actual_size":1610612736,"device_tree":{"_net1":{"id":"_net1","resources":[]}}}"#;

    #[test]
    fn a_vm_that_runs() {
        let VmmInfo { info, unfinished } = vmm(RUNNING.as_bytes()).unwrap();
        let expected = InstanceInfo {
            hypervisor: Hypervisor::CloudHypervisor,
            nics: vec![Nic::local("hype-tz4a98xx")],
            uncounted: vec![UncountedNic { kind: UncountedKind::VhostUser, name: "_net2".into() }],
            allocated_vcpus: Some(2),
            allocated_memory_bytes: Some(1536 * MIB),
            state: Some(VmState::Running),
            ..InstanceInfo::default()
        };
        assert_eq!((info, unfinished), (expected, false));
    }

    #[test]
    fn zones_balloon_and_a_vm_that_has_not_booted() {
        let zones =
            r#""size":0,"zones":[{"id":"a","size":1048576,"hotplugged_size":1048576},{"size":2097152}]"#;
        let body = RUNNING
            .replace(r#""size":1073741824"#, zones)
            .replace(r#""zones":null,"#, "")
            .replace(r#""hotplugged_size":536870912"#, r#""hotplugged_size":null"#)
            .replace(r#""balloon":null"#, r#""balloon":{"size":1048576,"deflate_on_oom":false}"#)
            .replace(r#""memory_actual_size":1610612736"#, r#""memory_actual_size":3145728"#)
            .replace("Running", "Created");
        let VmmInfo { info, unfinished } = vmm(body.as_bytes()).unwrap();
        assert_eq!((info.allocated_memory_bytes, info.actual_memory_bytes), (Some(4 * MIB), Some(3 * MIB)));
        assert!(unfinished);
        assert_eq!(info.state, Some(VmState::NotStarted));
        for (said, expected) in
            [("Paused", Some(VmState::Paused)), ("Shutdown", Some(VmState::Stopped)), ("Dreaming", None)]
        {
            assert_eq!(vmm(RUNNING.replace("Running", said).as_bytes()).unwrap().info.state, expected);
        }
    }

    #[test]
    fn what_only_the_api_knows_is_uncounted() {
        let plugged = r#""balloon":null,"devices":[{"path":"/sys/bus/pci/devices/0000:3b:00.1/","id":"_vfio3"}],
            "vdpa":[{"path":"/dev/vhost-vdpa-0","num_queues":1,"id":"_vdpa4"}]"#;
        let body = RUNNING
            .replace(r#""balloon":null"#, plugged)
            .replace(r#""vhost_user":true"#, r#""vhost_user":true,"vhost_socket":"/run/a.sock""#);
        let nics = vmm(body.as_bytes()).unwrap().info.uncounted;
        let nics: Vec<_> = nics.iter().map(|nic| format!("{} {}", nic.kind.as_str(), nic.name)).collect();
        assert_eq!(nics, ["vhost-user /run/a.sock", "vfio 0000:3b:00.1", "vhost-vdpa vhost-vdpa-0"]);
    }

    #[test]
    fn a_flood_of_interfaces_is_cut() {
        let flood = format!("\"net\":[{}", "{\"tap\":\"tap\"},".repeat(34_000));
        let info = vmm(RUNNING.replace("\"net\":[", &flood).as_bytes()).unwrap().info;
        assert_eq!((info.nics.len(), info.has_more_nics), (256, true));
        let vcpus = RUNNING.replace("\"boot_vcpus\":2", "\"boot_vcpus\":4097");
        assert!(vmm(vcpus.as_bytes()).is_err());
    }

    /// The bytes of Cloud Hypervisor's HTTP server.
    fn http(status: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status} \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[test]
    fn a_stand_in_of_the_api_is_asked_for_vm_info() {
        let stand_in = StandIn::new(vec![http("200", RUNNING)]);
        let vmm = answer(query, &stand_in).unwrap();
        assert_eq!(vmm.info.allocated_vcpus, Some(2));
        let request = stand_in.heard();
        assert!(request.starts_with("GET /api/v1/vm.info HTTP/1.1\r\nhost: localhost\r\n"), "{request}");
    }

    #[test]
    fn a_stand_in_of_a_vmm_without_a_vm_and_of_one_that_cannot_answer() {
        for (status, body) in [
            ("404", r#"["Error from API","The VM info is not available","VM is not created"]"#),
            ("500", "Error from API: The VM info is not available: VM is not created"),
        ] {
            let stand_in = StandIn::new(vec![http(status, body)]);
            assert_eq!(answer(query, &stand_in).unwrap(), VmmInfo::not_started());
        }
        for (status, body, problem) in [
            ("500", "", "GET /api/v1/vm.info: 500 Internal Server Error"),
            ("200", "{}", "/api/v1/vm.info: unexpected value at line 1, column 2"),
            ("200", "secret", "/api/v1/vm.info: bad JSON at line 1, column 1"),
        ] {
            let stand_in = StandIn::new(vec![http(status, body)]);
            assert_eq!(answer(query, &stand_in).unwrap_err().to_string(), problem);
        }
    }
}
