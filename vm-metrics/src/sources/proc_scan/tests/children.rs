//! A VMM whose devices are processes of their own, as crosvm's are in its sandbox.

use super::*;

const CROSVM: Fake = Fake { taps: &[], ..kvm::CROSVM };

const DEVICE: Fake = Fake { pid: 101, ppid: 100, start: 5001, taps: &[(9, "tap0")], ..CROSVM };

/// The TAPs of each VM.
fn taps(scan: &mut ProcScan, now: Duration) -> Vec<(String, Vec<String>)> {
    let taps = |vm: &InstanceInfo| vm.nics.iter().map(|nic| nic.tap.clone()).collect();
    list(scan, now).iter().map(|vm| (vm.id.clone(), taps(vm))).collect()
}

fn with(taps: &[&str]) -> Vec<(String, Vec<String>)> {
    vec![("crosvm-100".to_owned(), taps.iter().map(ToString::to_string).collect())]
}

#[test]
fn a_device_process_holds_its_vms_tap() {
    let fixture = Fixture::of_kvm(&[CROSVM, DEVICE]);
    fixture.runs_vm(100, 1);
    let mut scan = fixture.scan();
    for second in [0, 1, 2, 40, 80] {
        assert_eq!(taps(&mut scan, second * TICK), with(&["tap0"]), "{second}");
    }
    // Its VMM opens something else.
    fixture.descriptor(100, 30, "/dev/null", None);
    assert_eq!(taps(&mut scan, 81 * TICK), with(&["tap0"]));
    fixture.end(101);
    assert_eq!(taps(&mut scan, 120 * TICK), with(&[]));
}

#[test]
fn a_device_process_that_starts_later_is_found() {
    let fixture = Fixture::of_kvm(&[CROSVM]);
    fixture.runs_vm(100, 1);
    let mut scan = fixture.scan();
    assert_eq!(taps(&mut scan, START), with(&[]));
    fixture.put(&DEVICE);
    fixture.add_device("tap0");
    let found = (1..60).find(|second| taps(&mut scan, *second * TICK) == with(&["tap0"]));
    assert!(found.is_some_and(|second| second <= 31), "{found:?}");
}

#[test]
fn a_tap_of_another_vm_is_not_taken() {
    let other = Fake { exe: "/usr/bin/pasta", args: "pasta", ..DEVICE };
    let sibling = Fake { ppid: 1, ..DEVICE };
    for (holder, why) in [(other, "another program"), (sibling, "not from the VM")] {
        let fixture = Fixture::of_kvm(&[CROSVM, holder]);
        fixture.runs_vm(100, 1);
        assert_eq!(taps(&mut fixture.scan(), START), with(&[]), "{why}");
    }
    // It is about to be a VM itself.
    let fixture = Fixture::of_kvm(&[CROSVM, DEVICE]);
    fixture.runs_vm(100, 1);
    fixture.descriptor(101, 3, "/dev/kvm", None);
    let mut scan = fixture.scan();
    assert_eq!(taps(&mut scan, START), with(&[]));
    fixture.runs_vm(101, 1);
    let vms = (1..10).map(|second| taps(&mut scan, second * TICK)).last().unwrap();
    assert_eq!(vms[1], ("crosvm-101".to_owned(), vec!["tap0".to_owned()]));
    assert_eq!(vms[..1], with(&[]));
}

#[test]
fn unmonitored_nics_of_children_are_listed() {
    let fixture = Fixture::of_kvm(&[CROSVM, DEVICE]);
    fixture.runs_vm(100, 1);
    fixture.descriptor(101, 10, "/dev/vhost-vdpa-0", None);
    let mut scan = fixture.scan();
    for second in [0, 1, 2, 40] {
        let vms = list(&mut scan, second * TICK);
        assert_eq!((super::taps(&vms[0]), vms[0].unmonitored.len()), (vec!["tap0"], 1), "{second}");
        // What the VMM itself opens does not hide it.
        fixture.descriptor(100, 30 + second, "/dev/null", None);
    }
}

#[test]
fn devices_with_nics_left_out_leave_no_sum() {
    let fixture = Fixture::of_kvm(&[CROSVM, DEVICE]);
    fixture.runs_vm(100, 1);
    let mut scan = fixture.scan();
    assert!(!scan.list_at(START).unwrap().instances[0].has_more_nics);
    fixture.descriptor(101, 10, "/dev/net/tun", Some("odd"));
    fs::write(fixture.process(101).join("fdinfo/10"), b"pos:\t0\niff:\todd\xff\n").unwrap();
    let listing = scan.list_at(FULL_SCAN_INTERVAL).unwrap();
    assert!(listing.instances[0].has_more_nics);
    assert!(listing.problems[0].to_string().contains("process 101"), "{:?}", listing.problems);
    for descriptor in 10..266 {
        fixture.descriptor(101, descriptor, "/dev/net/tun", Some(&format!("tap{descriptor}")));
    }
    fixture.descriptor(100, 9, "/dev/net/tun", Some("tap1"));
    let vm = scan.list_at(2 * FULL_SCAN_INTERVAL).unwrap().instances.remove(0);
    assert_eq!((vm.nics.len(), vm.has_more_nics), (256, true));
}

#[test]
fn a_child_with_a_vm_takes_its_tap() {
    let fixture = Fixture::of_kvm(&[CROSVM, DEVICE]);
    fixture.runs_vm(100, 1);
    let mut scan = fixture.scan();
    assert_eq!(taps(&mut scan, START), with(&["tap0"]));
    fixture.runs_vm(101, 1);
    let vms = (4..10).map(|second| taps(&mut scan, second * TICK)).last().unwrap();
    let child = ("crosvm-101".to_owned(), vec!["tap0".to_owned()]);
    assert_eq!(vms, [with(&[]).remove(0), child.clone()]);
    fixture.descriptor(100, 30, "/dev/null", None);
    assert_eq!(taps(&mut scan, 40 * TICK), [with(&[]).remove(0), child]);
}

#[test]
fn an_unread_child_keeps_its_tap() {
    let fixture = Fixture::of_kvm(&[CROSVM]);
    fixture.runs_vm(100, 1);
    let mut scan = fixture.scan();
    for second in 0..2 {
        assert_eq!(taps(&mut scan, second * TICK), with(&[]));
    }
    fixture.put(&Fake { uid: 65534, ..DEVICE });
    // More than the time until then pays for: there is time for a look at it, and none for KVM.
    scan.kvm_looks.used(Some(65534), Duration::from_secs(10));
    assert_eq!(taps(&mut scan, TICK + FULL_SCAN_INTERVAL), with(&[]));
}
