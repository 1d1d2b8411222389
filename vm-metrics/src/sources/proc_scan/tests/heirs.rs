//! Tests that a VM stays itself when its process changes.

use super::*;

const VM: Fake = Fake { args: "kvm -name web", taps: &[(9, "tap0")], ..Fake::QEMU };

/// Id, process and TAPs of each VM.
fn vms(scan: &mut ProcScan, now: Duration) -> Vec<(String, Option<u32>, Vec<String>)> {
    let taps = |vm: &InstanceInfo| vm.nics.iter().map(|nic| nic.tap.clone()).collect();
    let vms = list(scan, now);
    vms.iter().map(|vm| (vm.id.clone(), vm.hypervisor_pid, taps(vm))).collect()
}

fn one(id: &str, pid: Option<u32>) -> Vec<(String, Option<u32>, Vec<String>)> {
    vec![(id.to_owned(), pid, vec!["tap0".to_owned()])]
}

#[test]
fn a_command_line_is_read_once() {
    let fixture = Fixture::with(&[VM]);
    let mut scan = fixture.scan();
    assert_eq!(vms(&mut scan, START), one("web", Some(100)));
    fixture.put(&Fake { args: "kvm -name other", ..VM });
    for now in [TICK, YOUNG + TICK, FULL_SCAN_INTERVAL + TICK] {
        assert_eq!(vms(&mut scan, now), one("web", Some(100)));
    }
}

#[test]
fn another_program_with_its_tap_is_another_vm() {
    let fixture = Fixture::with(&[VM]);
    fixture.tap("tap0", true);
    let mut scan = fixture.scan();
    vms(&mut scan, START);
    fixture.put(&Fake { exe: "/bin/sh", args: "sh", ..VM });
    assert_eq!(vms(&mut scan, TICK), one("other-100", Some(100)));
    fixture.put(&Fake { exe: "/bin/sh", args: "sh", taps: &[], ..VM });
    assert_eq!(vms(&mut scan, 2 * TICK), [], "it holds nothing any more");
}

#[test]
fn a_child_with_the_tap_is_the_vm() {
    let child = Fake { pid: 101, ppid: 100, start: 6000, exe: "/bin/sh", args: "sh", ..VM };
    let fork = Fake { pid: 102, ppid: 101, start: 6001, args: "kvm -name other", ..VM };
    for heir in [child, fork] {
        let between = Fake { pid: 101, ppid: 100, exe: "/bin/sh", args: "sh", taps: &[], ..VM };
        let fixture = Fixture::with(&[VM, between]);
        fixture.tap("tap0", true);
        fixture.put(&heir);
        let mut scan = fixture.scan();
        assert_eq!(vms(&mut scan, START), one("web", Some(100)), "the child is no VM of its own");
        fixture.end(100);
        assert_eq!(vms(&mut scan, TICK), one("web", Some(heir.pid)));
        assert_eq!(vms(&mut scan, YOUNG + TICK), one("web", Some(heir.pid)));
    }
}

#[test]
fn the_vm_keeps_taps_of_its_child() {
    let child = Fake { pid: 101, ppid: 100, start: 6000, exe: "/bin/sh", args: "sh", ..VM };
    let fixture = Fixture::with(&[VM, child]);
    let mut scan = fixture.scan();
    vms(&mut scan, START);
    fixture.put(&Fake { taps: &[], ..VM });
    for now in [TICK, 2 * TICK] {
        assert_eq!(vms(&mut scan, now), one("web", Some(100)));
    }
}
