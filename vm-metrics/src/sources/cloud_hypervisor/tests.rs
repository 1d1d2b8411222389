//! Tests of Cloud Hypervisor's API against a fake VMM.

use super::*;
use crate::sources::vmm_api::tests::{FakeVmm, answer, http_response, ok};

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
        unmonitored: vec![UnmonitoredNic { kind: UnmonitoredKind::VhostUser, name: "_net2".into() }],
        allocated_vcpus: Some(2),
        allocated_memory_bytes: Some(1536 * MIB),
        state: Some(VmState::Running),
        ..InstanceInfo::default()
    };
    assert_eq!((info, unfinished), (expected, false));
}

#[test]
fn zones_and_balloon_of_a_created_vm() {
    let zones = r#""size":0,"zones":[{"id":"a","size":1048576,"hotplugged_size":1048576},{"size":2097152}]"#;
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
fn nics_of_the_api_alone_are_unmonitored() {
    let plugged = r#""balloon":null,"devices":[{"path":"/sys/bus/pci/devices/0000:3b:00.1/","id":"_vfio3"}],
        "vdpa":[{"path":"/dev/vhost-vdpa-0","num_queues":1,"id":"_vdpa4"}]"#;
    let body = RUNNING
        .replace(r#""balloon":null"#, plugged)
        .replace(r#""vhost_user":true"#, r#""vhost_user":true,"vhost_socket":"/run/a.sock""#);
    let nics = vmm(body.as_bytes()).unwrap().info.unmonitored;
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

#[test]
fn the_api_gets_one_request_for_vm_info() {
    let vmm = FakeVmm::new(vec![ok(RUNNING)]);
    let info = answer(query, &vmm).unwrap().info;
    assert_eq!(info.allocated_vcpus, Some(2));
    let request = vmm.requests();
    assert!(request.starts_with("GET /api/v1/vm.info HTTP/1.1\r\nhost: localhost\r\n"), "{request}");
}

/// Other errors of the API are problems.
#[test]
fn a_vmm_without_a_vm_is_not_started() {
    for (status, body) in [
        ("404", r#"["Error from API","The VM info is not available","VM is not created"]"#),
        ("500", "Error from API: The VM info is not available: VM is not created"),
    ] {
        let vmm = FakeVmm::new(vec![http_response(status, body)]);
        assert_eq!(answer(query, &vmm).unwrap(), VmmInfo::not_started());
    }
    for (status, body, problem) in [
        ("500", "", "GET /api/v1/vm.info: 500 Internal Server Error"),
        ("200", "{}", "/api/v1/vm.info: unexpected value at line 1, column 2"),
        ("200", "secret", "/api/v1/vm.info: bad JSON at line 1, column 1"),
    ] {
        let vmm = FakeVmm::new(vec![http_response(status, body)]);
        assert_eq!(answer(query, &vmm).unwrap_err().to_string(), problem);
    }
}
