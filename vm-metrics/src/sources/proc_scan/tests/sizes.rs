//! vCPUs and memory beyond the command line.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::*;

const MIB: u64 = 1 << 20;

fn put_vcpus(fixture: &Fixture, pid: u32, count: u32) {
    for vcpu in 0..count {
        fixture.descriptor(pid, 10 + vcpu, &format!("anon_inode:kvm-vcpu:{vcpu}"), None);
    }
}

fn vcpus(scan: &mut ProcScan, after: Duration) -> Vec<Option<u32>> {
    let listing = scan.list_at(START + after).unwrap();
    listing.instances.iter().map(|vm| vm.allocated_vcpus).collect()
}

#[test]
fn kvm_says_how_many_vcpus_are_plugged_in() {
    let line = |pid, args| Fake { pid, start: u64::from(pid), args, ..Fake::QEMU };
    let fixture = Fixture::with(&[
        line(11, "kvm -name a -smp 1,maxcpus=4"),
        line(12, "kvm -name b -smp 1,maxcpus=4"),
        line(13, "kvm -name c -smp 1"),
    ]);
    put_vcpus(&fixture, 11, 3);
    put_vcpus(&fixture, 12, 5);
    put_vcpus(&fixture, 13, 3);
    let mut scan = fixture.scan();
    assert_eq!(vcpus(&mut scan, Duration::ZERO), [Some(3), None, None], "five of four are not believed");
    put_vcpus(&fixture, 11, 4);
    assert_eq!(vcpus(&mut scan, FULL_SCAN_INTERVAL), [Some(4), None, None]);
}

#[test]
fn without_kvm_vcpus_are_those_of_the_start() {
    let args =
        "qemu-system-x86_64 -name a -smp 1,sockets=2,cores=2,maxcpus=4 -device kvm64-x86_64-cpu,id=cpu2";
    let fixture = Fixture::with(&[Fake { args, ..Fake::QEMU }]);
    let vms = list(&mut fixture.scan(), START);
    assert_eq!((vms[0].allocated_vcpus, vms[0].max_vcpus), (Some(2), Some(4)));
}

#[test]
fn qemu_sizes_come_from_arguments_and_file() {
    let args = "qemu-system-x86_64 -name web -m 64 -readconfig /qemu.conf";
    let fixture = Fixture::with(&[Fake { args, ..Fake::QEMU }]);
    let root = fixture.process(100).join("root");
    fs::create_dir(&root).unwrap();
    let file = "[memory]\nsize = \"1024M\"\n[smp-opts]\ncpus = \"1\"\nmaxcpus = \"8\"\n";
    fs::write(root.join("qemu.conf"), file).unwrap();
    put_vcpus(&fixture, 100, 2);
    let listing = fixture.scan().list_at(START).unwrap();
    let vm = &listing.instances[0];
    assert_eq!((vm.allocated_vcpus, vm.max_vcpus), (Some(2), Some(8)));
    assert_eq!(vm.allocated_memory_bytes, Some(1024 * MIB));
    assert!(listing.problems.is_empty(), "{:?}", listing.problems);
}

#[test]
fn a_bad_config_file_leaves_sizes_unknown() {
    let args = "qemu-system-x86_64 -name web -m 64 -readconfig /qemu.conf";
    let fixture = Fixture::with(&[Fake { args, ..Fake::QEMU }]);
    let root = fixture.process(100).join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("qemu.conf"), "root:$6$secret:1::\n").unwrap();
    fs::set_permissions(root.join("qemu.conf"), Permissions::from_mode(0o600)).unwrap();
    let listing = fixture.scan().list_at(START).unwrap();
    let vm = &listing.instances[0];
    assert_eq!((vm.allocated_vcpus, vm.allocated_memory_bytes), (None, None));
    assert_eq!(listing.texts(), ["process 100: its configuration file cannot be used"]);
}

#[test]
fn a_device_model_of_xen_is_xen() {
    let args = "qemu-system-i386 -xen-domid 7 -name web -machine xenfv -m 2040 -smp 2";
    let exe = "/usr/lib/xen/bin/qemu-system-i386";
    let fixture = Fixture::with(&[Fake { exe, args, taps: &[(9, "tap0")], ..Fake::QEMU }]);
    let vms = list(&mut fixture.scan(), START);
    let nics = vec![Nic::local("tap0")];
    assert_eq!(vms, [InstanceInfo { nics, ..vm("web", 100, Hypervisor::Xen) }]);
}

#[test]
fn excess_vcpus_of_kvm_are_a_problem() {
    let fixture = Fixture::of_kvm(&[Fake { args: "kvm -name web -smp 1", ..Fake::QEMU }]);
    fixture.runs_vm(100, 3);
    let listing = fixture.scan().list_at(START).unwrap();
    assert_eq!(listing.instances[0].allocated_vcpus, None);
    let problem = listing.problems.first().expect("a problem").to_string();
    assert!(
        problem.contains("KVM has made 3 vCPUs") && problem.contains("more than 1 on its command line"),
        "{problem}"
    );
    // All that its command line allows.
    let args = "kvm -name web -smp 1,maxcpus=3";
    fixture.put(&Fake { args, ..Fake::QEMU });
    fixture.runs_vm(100, 3);
    let listing = fixture.scan().list_at(START).unwrap();
    assert_eq!((listing.instances[0].allocated_vcpus, listing.problems.len()), (Some(3), 0));
}
