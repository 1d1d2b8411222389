//! Looks at processes with so many descriptors that they go on in the next calls.

use std::os::unix::fs::symlink;
use std::sync::{Mutex, mpsc};

use super::*;

/// More than are looked at without a look at the time.
const MANY: u32 = 2000;

/// So many calls are enough.
const CALLS: u32 = 20;

const STRANGER: u32 = 65534;

/// A scan that has no time at all, so that each look does as little as it may.
fn hurried(fixture: &Fixture) -> ProcScan {
    ProcScan { pace: WalkTime { trusted: Duration::ZERO, others: Duration::ZERO }, ..fixture.scan() }
}

fn open_many(fixture: &Fixture, pid: u32) {
    let directory = fixture.process(pid).join("fd");
    for descriptor in 1000..1000 + MANY {
        symlink("/dev/null", directory.join(descriptor.to_string())).unwrap();
    }
}

#[test]
fn nics_among_many_descriptors_are_found_in_parts() {
    const TAPS: &[(u32, &str)] = &[(3, "tap0"), (4000, "tap1"), (4001, "tap2")];
    let fixture = Fixture::with(&[Fake { taps: TAPS, ..Fake::QEMU }]);
    open_many(&fixture, 100);
    let mut scan = hurried(&fixture);
    let first = scan.list_at(START).unwrap();
    let problems = first.texts();
    assert!(first.instances[0].has_more_nics, "not all are known yet");
    assert!(problems[0].contains("the next ticks look at the rest"), "{problems:?}");
    let all = |vm: &InstanceInfo| {
        let mut taps = taps(vm);
        taps.sort_unstable();
        taps == ["tap0", "tap1", "tap2"] && !vm.has_more_nics
    };
    let mut calls = 1..=CALLS;
    assert!(calls.any(|call| all(&scan.list_at(call * TICK).unwrap().instances[0])));
    // It is looked at anew, and keeps what is known meanwhile.
    fixture.add_device("tap9");
    for call in calls.by_ref().take(8) {
        assert!(all(&list(&mut scan, call * TICK)[0]), "{call}");
    }
}

fn close(fixture: &Fixture, pid: u32, descriptor: u32) {
    for directory in ["fd", "fdinfo"] {
        let file = fixture.process(pid).join(directory).join(descriptor.to_string());
        fs::remove_file(file).unwrap();
    }
}

#[test]
fn a_partial_scan_drops_a_closed_nic() {
    const TAPS: &[(u32, &str)] = &[(3, "tap0"), (4, "tap1")];
    let fixture = Fixture::with(&[Fake { taps: TAPS, ..Fake::QEMU }]);
    let mut scan = hurried(&fixture);
    assert_eq!(taps(&list(&mut scan, START)[0]), ["tap0", "tap1"]);
    close(&fixture, 100, 3);
    open_many(&fixture, 100);
    assert_eq!(taps(&scan.list_at(TICK).unwrap().instances[0]), ["tap1"]);
}

/// A look at a process that has never been looked at whole, and that lasts for many calls.
#[test]
fn later_parts_drop_nics_of_early_ones() {
    let fixture = Fixture::with(&[Fake::QEMU]);
    open_many(&fixture, 100);
    for descriptor in 3..10 {
        fixture.descriptor(100, descriptor, "/dev/net/tun", Some(&format!("tap{descriptor}")));
    }
    let mut scan = hurried(&fixture);
    let mut held = |call: u32| taps(&scan.list_at(call * TICK).unwrap().instances[0]).len();
    let mut calls = 0..CALLS;
    let found = calls.by_ref().map(&mut held).find(|count| *count > 0).unwrap();
    for descriptor in 3..10 {
        close(&fixture, 100, descriptor);
    }
    assert_eq!(held(calls.next().unwrap()), 0, "of {found}");
}

/// Its descriptors are as many as before.
#[test]
fn a_new_vm_takes_a_closed_nic() {
    const TAPS: &[(u32, &str)] = &[(3, "tap0")];
    const NEW: Fake = Fake { pid: 101, args: "kvm -name new", start: 6000, taps: TAPS, ..Fake::QEMU };
    let fixture = Fixture::with(&[Fake { taps: TAPS, ..Fake::QEMU }]);
    let mut scan = fixture.scan();
    let mut now = START;
    list(&mut scan, now);
    // Old enough that it is looked at for a reason only.
    now += YOUNG;
    list(&mut scan, now);
    close(&fixture, 100, 3);
    fixture.descriptor(100, 3, "/dev/null", None);
    fixture.put(&NEW);
    let vms = list(&mut scan, now + TICK);
    assert_eq!((taps(&vms[0]), taps(&vms[1])), (vec![], vec!["tap0"]));
}

#[test]
fn an_heir_loses_what_it_has_closed() {
    const TAPS: &[(u32, &str)] = &[(3, "tap0")];
    const HEIR: Fake =
        Fake { pid: 101, ppid: 100, exe: "/usr/bin/helper", args: "helper", taps: TAPS, ..Fake::QEMU };
    const NEW: Fake = Fake { pid: 102, args: "kvm -name new", start: 6000, taps: TAPS, ..Fake::QEMU };
    let fixture = Fixture::with(&[Fake { taps: TAPS, ..Fake::QEMU }, HEIR]);
    let mut scan = hurried(&fixture);
    list(&mut scan, START);
    close(&fixture, 100, 3);
    let mut now = TICK;
    assert_eq!(taps(&list(&mut scan, now)[0]), ["tap0"], "by its heir");
    now += YOUNG + TICK;
    list(&mut scan, now);
    close(&fixture, 101, 3);
    open_many(&fixture, 101);
    fixture.put(&NEW);
    let vms = scan.list_at(now + TICK).unwrap().instances;
    assert_eq!((taps(&vms[0]), taps(&vms[1])), (vec![], vec!["tap0"]));
}

#[test]
fn a_kvm_vm_among_many_descriptors_is_found() {
    let fixture = Fixture::of_kvm(&[kvm::CROSVM]);
    open_many(&fixture, 100);
    fixture.runs_vm(100, 3);
    let mut scan = hurried(&fixture);
    let is_found = |listing: Listing| {
        listing.instances.iter().any(|vm| vm.allocated_vcpus == Some(3) && taps(vm) == ["tap0"])
    };
    assert!((0..CALLS).any(|call| is_found(scan.list_at(call * TICK).unwrap())));
}

/// The look at a process must not go on with what another one held.
#[test]
fn a_part_is_not_taken_for_another_process() {
    let fixture = Fixture::with(&[Fake { taps: &[(3, "tap0")], ..Fake::QEMU }]);
    open_many(&fixture, 100);
    let mut scan = hurried(&fixture);
    scan.list_at(START).unwrap();
    fixture.put(&Fake { start: 6000, ..Fake::QEMU });
    for call in 1..=CALLS {
        assert_eq!(list(&mut scan, call * TICK)[0].nics, [], "{call}");
    }
}

#[test]
fn looks_that_hang_cost_their_user() {
    let fixture = Fixture::new();
    let mut scan = fixture.scan();
    let (release, hanging) = mpsc::channel::<()>();
    let hanging = Mutex::new(hanging);
    let read = move |question: (Arc<Observer>, u32, ProcessQuery)| {
        if (101..104).contains(&question.1) && matches!(question.2, ProcessQuery::New { .. }) {
            let _ = hanging.lock().unwrap().recv();
        }
        queries::answer(question)
    };
    scan.patient = Patient::new("scan", PATIENCE, read).with_patience_for_others(PATIENCE_FOR_OTHERS);
    list(&mut scan, START);
    for pid in 101..104 {
        fixture.put(&Fake { pid, uid: STRANGER, ..Fake::QEMU });
    }
    fixture.put(&Fake { pid: 105, uid: STRANGER + 1, args: "kvm -name modest", ..Fake::QEMU });
    assert_eq!(ids(&scan.list_at(TICK).unwrap().instances), ["modest"]);
    assert!(!scan.looks.is_room(Some(STRANGER)), "{:?}", scan.looks);
    drop(release);
}

/// Looks at VMs and looks for KVM have times of their own.
#[test]
fn children_of_a_busy_user_are_looked_at() {
    const VM: Fake = Fake { uid: STRANGER, taps: &[], ..kvm::CROSVM };
    const DEVICE: Fake = Fake { pid: 101, ppid: 100, start: 5001, ..VM };
    let fixture = Fixture::of_kvm(&[VM, DEVICE]);
    fixture.runs_vm(100, 1);
    fixture.descriptor(101, 10, "/dev/vhost-vdpa-0", None);
    let mut scan = fixture.scan();
    scan.looks.used(Some(STRANGER), Duration::from_secs(1));
    assert_eq!(list(&mut scan, START)[0].unmonitored.len(), 1);
}

/// Its `status` may be slow, or not answer at all.
#[test]
fn a_new_process_is_known_by_its_owner() {
    let fixture =
        Fixture::with(&[Fake { exe: "/usr/bin/sleep", args: "sleep 9", uid: STRANGER, ..Fake::QEMU }]);
    fixture.break_file(&fixture.process(100).join("status"));
    let mut scan = fixture.scan();
    list(&mut scan, START);
    assert_eq!(scan.processes[&100].uid, Some(STRANGER));
}
