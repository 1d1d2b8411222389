//! Source `firecracker`: asks Firecracker's API by `GET /`, `GET /vm/config` and requests for details.
//!
//! The socket is that of the VMM's command line, or the default one, inside the root of its jail. Firecracker logs each
//! request at level `Info`.

use hyper::StatusCode;
use serde::Deserialize;
use tokio::net::UnixStream;

use super::proc_scan::FirecrackerConfig;
use super::vmm_api::{FoundVmms, Http, QueryError, QueryFuture, VmmInfo};
use super::{Precedence, SourceDef};
use crate::model::{Hypervisor, InstanceInfo, Nic, VmState, is_device_name};
use crate::sources::values::bounded;

const CONFIG: &str = "/vm/config";
const MACHINE: &str = "/machine-config";

pub const SOURCE: SourceDef = SourceDef {
    name: "firecracker",
    help: "the API of the Firecracker processes that were found, jailed or not",
    precedence: Precedence::Vmm,
    config: r#"# Sizes, NICs and state of VMs, from the API socket of Firecracker: named by its command line, or the default one.
[sources.firecracker]
enabled = "auto"
"#,
    configure: |section, context| FoundVmms::configure(Hypervisor::Firecracker, query, section, context),
};

pub(super) fn query(stream: UnixStream) -> QueryFuture {
    Box::pin(Http::over(stream, talk))
}

async fn talk(mut http: Http) -> Result<VmmInfo, QueryError> {
    let instance: InstanceBody = http.json("/").await?;
    let (status, body) = http.get(CONFIG).await?;
    let config = match status {
        StatusCode::OK => serde_json::from_slice(&body).map_err(|error| QueryError::json(CONFIG, &error))?,
        // Versions before 0.25 do not have it.
        _ => FirecrackerConfig { machine_config: Some(http.json(MACHINE).await?), ..Default::default() },
    };
    let plugged = match config.memory_hotplug {
        Some(_) => http.json::<HotplugBody>("/hotplug/memory").await?.plugged_size_mib,
        None => 0,
    };
    Ok(vmm(&instance, config, plugged))
}

fn vmm(instance: &InstanceBody, config: FirecrackerConfig, plugged_mib: u64) -> VmmInfo {
    let has_more_nics = config.network_interfaces.len() > bounded::MAX_NICS;
    let interfaces = config.network_interfaces.into_iter().take(bounded::MAX_NICS);
    let taps = interfaces.map(|interface| interface.host_dev_name);
    let machine = config.machine_config.as_ref();
    let memory = machine.and_then(|machine| machine.mem_size_mib?.checked_add(plugged_mib));
    let info = InstanceInfo {
        hypervisor: Hypervisor::Firecracker,
        nics: taps.filter(|tap| is_device_name(tap)).map(Nic::local).collect(),
        has_more_nics,
        allocated_vcpus: machine.and_then(|machine| machine.vcpu_count),
        allocated_memory_bytes: memory.and_then(|mib| mib.checked_mul(1 << 20)),
        state: match instance.state.as_str() {
            "Running" => Some(VmState::Running),
            "Paused" => Some(VmState::Paused),
            _ => None,
        },
        ..InstanceInfo::default()
    };
    // Before the start the API has only defaults, which the orchestrator is about to change.
    match instance.state.as_str() {
        "Not started" => VmmInfo::not_started(),
        _ => VmmInfo { info, unfinished: false },
    }
}

#[derive(Deserialize)]
struct InstanceBody {
    state: String,
}

#[derive(Deserialize)]
struct HotplugBody {
    #[serde(deserialize_with = "bounded::memory_mib")]
    plugged_size_mib: u64,
}

#[cfg(test)]
mod tests {
    use super::super::vmm_api::tests::{FakeVmm, answer, http_response, ok};
    use super::*;

    const RUNNING: &str =
        r#"{"id":"551e7604","state":"Running","vmm_version":"1.13.0","app_name":"Firecracker"}"#;

    /// As Firecracker 1.13 writes it.
    const FULL: &str = r#"{"balloon":null,"drives":[{"drive_id":"rootfs","partuuid":null,"is_root_device":true,
        "cache_type":"Unsafe","is_read_only":false,"path_on_host":"/rootfs.ext4","rate_limiter":null,"io_engine":"Sync",
        "socket":null}],"boot-source":{"kernel_image_path":"/vmlinux","initrd_path":null,"boot_args":"panic=1"},
        "cpu-config":null,"logger":null,"machine-config":{"vcpu_count":2,"mem_size_mib":1024,"smt":false,
        "track_dirty_pages":false,"huge_pages":"None"},"metrics":null,"mmds-config":null,"network-interfaces":[
        {"iface_id":"eth0","host_dev_name":"fc0","guest_mac":"06:00:ac:10:00:02","rx_rate_limiter":null,
        "tx_rate_limiter":null}],"vsock":null,"entropy":null}"#;

    fn running(vcpus: u32, memory_mib: u64, taps: &[&str]) -> VmmInfo {
        let info = InstanceInfo {
            hypervisor: Hypervisor::Firecracker,
            nics: taps.iter().map(|tap| Nic::local(*tap)).collect(),
            allocated_vcpus: Some(vcpus),
            allocated_memory_bytes: Some(memory_mib << 20),
            state: Some(VmState::Running),
            ..InstanceInfo::default()
        };
        VmmInfo { info, unfinished: false }
    }

    #[test]
    fn the_api_gives_vcpus_memory_and_taps() {
        let vmm = FakeVmm::new(vec![ok(RUNNING), ok(FULL)]);
        assert_eq!(answer(query, &vmm).unwrap(), running(2, 1024, &["fc0"]));
        let requests = vmm.requests();
        assert!(
            requests.starts_with("GET / HTTP/1.1\r\n") && requests.contains("GET /vm/config HTTP/1.1\r\n"),
            "{requests}"
        );
    }

    #[test]
    fn plugged_memory_counts_and_old_versions_answer() {
        let hotplug =
            r#""memory-hotplug":{"total_size_mib":1024,"block_size_mib":2,"slot_size_mib":128},"vsock":null"#;
        let status = r#"{"total_size_mib":1024,"block_size_mib":2,"slot_size_mib":128,"plugged_size_mib":512,
            "requested_size_mib":512}"#;
        let full = FULL.replace(r#""vsock":null"#, hotplug);
        let vmm = FakeVmm::new(vec![ok(RUNNING), ok(&full), ok(status)]);
        assert_eq!(answer(query, &vmm).unwrap(), running(2, 1536, &["fc0"]));

        let fault =
            http_response("400", r#"{"fault_message":"Invalid request method and/or path: GET vm/config."}"#);
        let machine = r#"{"vcpu_count":4,"mem_size_mib":256,"ht_enabled":false,"track_dirty_pages":false}"#;
        let vmm = FakeVmm::new(vec![ok(RUNNING), fault, ok(machine)]);
        assert_eq!(answer(query, &vmm).unwrap(), running(4, 256, &[]));
    }

    #[test]
    fn a_machine_that_is_null_has_no_sizes() {
        let machine = FULL.find("\"machine-config\":{").unwrap();
        let end = FULL[machine..].find('}').unwrap() + machine + 1;
        let full = FULL.replace(&FULL[machine..end], "\"machine-config\":null");
        let info = answer(query, &FakeVmm::new(vec![ok(RUNNING), ok(&full)])).unwrap().info;
        assert_eq!((info.allocated_vcpus, info.allocated_memory_bytes), (None, None));
        assert_eq!(info.nics, [Nic::local("fc0")]);
    }

    /// The defaults of the config file are no answers of the API.
    #[test]
    fn sizes_left_out_by_the_api_are_unknown() {
        let size = |left_out| {
            let full = FULL.replace(left_out, "");
            let info = answer(query, &FakeVmm::new(vec![ok(RUNNING), ok(&full)])).unwrap().info;
            (info.allocated_vcpus, info.allocated_memory_bytes)
        };
        assert_eq!(size(r#""mem_size_mib":1024,"#), (Some(2), None));
        assert_eq!(size(r#""vcpu_count":2,"#), (None, Some(1 << 30)));
    }

    #[test]
    fn a_flood_of_interfaces_is_cut() {
        let interface = r#"{"iface_id":"e","host_dev_name":"tap","guest_mac":null}"#;
        let flood = vec![interface; 17_000].join(",");
        let (head, tail) = FULL.split_at(FULL.find(r#"{"iface_id":"eth0""#).unwrap());
        let full = format!("{head}{flood},{tail}");
        assert!(full.len() < 1 << 20);
        let vmm = FakeVmm::new(vec![ok(RUNNING), ok(&full)]);
        assert_eq!(answer(query, &vmm).unwrap().info.nics.len(), 256);

        let vcpus = FULL.replace(r#""vcpu_count":2"#, r#""vcpu_count":4294967295"#);
        let vmm = FakeVmm::new(vec![ok(RUNNING), ok(&vcpus)]);
        let problem = answer(query, &vmm).unwrap_err().to_string();
        assert!(problem.starts_with("/vm/config: unexpected value at line"), "{problem}");
    }

    #[test]
    fn a_vm_before_its_start_has_no_sizes() {
        let vmm = FakeVmm::new(vec![ok(&RUNNING.replace("Running", "Not started")), ok(FULL)]);
        assert_eq!(answer(query, &vmm).unwrap(), VmmInfo::not_started());
    }
}
