//! Tests of ids of KVM VMs and of shares of time.

use std::fs;
use std::time::Duration;

use super::*;
use crate::sources::merge::fingerprints::Fingerprints;

const CROSVM: Fake = Fake { uid: 1001, session: 100, taps: &[], ..kvm::CROSVM };

fn fingerprints(fixture: &Fixture, fake: &Fake, group: &str) -> Fingerprints {
    fixture.put(fake);
    fixture.cgroup(fake.pid, group);
    fixture.runs_vm(fake.pid, 1);
    let listing = fixture.scan().list_at(START).unwrap();
    listing.processes[&fake.pid].fingerprints
}

#[test]
fn vms_of_a_manager_outlive_it() {
    let fixture = Fixture::of_kvm(&[]);
    for (pid, session) in [(61, 50), (62, 50), (63, 63)] {
        fixture.put(&Fake { pid, session, start: pid.into(), ..CROSVM });
        fixture.cgroup(pid, "/system.slice/manager.service");
        fixture.runs_vm(pid, 1);
    }
    // It leads a session, and has the variables of the manager.
    fs::write(fixture.process(63).join("environ"), "A=1\0SYSTEMD_EXEC_PID=50\0").unwrap();
    let vms = list(&mut fixture.scan(), START);
    assert_eq!(ids(&vms), ["crosvm-61", "crosvm-62", "crosvm-63"]);
    fixture.end(61);
    fixture.end(62);
    assert_eq!(ids(&list(&mut fixture.scan(), START)), ["crosvm-63"], "also alone");
    fs::write(fixture.process(63).join("environ"), "SYSTEMD_EXEC_PID=63\0").unwrap();
    assert_eq!(ids(&list(&mut fixture.scan(), START)), ["manager"], "the unit's own process");
}

#[test]
fn units_of_two_users_are_two_vms() {
    let fixture = Fixture::of_kvm(&[]);
    let of = |pid, uid, group: &str| {
        fingerprints(&fixture, &Fake { pid, session: pid, uid, start: pid.into(), ..CROSVM }, group).numbers()
    };
    let unit = |uid| format!("/user.slice/user-{uid}.slice/user@{uid}.service/app.slice/web.service");
    let [first, other] = [(100, 1001), (101, 1002)].map(|(pid, uid)| of(pid, uid, &unit(uid)));
    assert_ne!(first[0], other[0]);
    assert_eq!(of(102, 1001, &unit(1001)), first, "the same one again");
}

#[test]
fn a_pid_is_another_vm_later() {
    let fixture = Fixture::of_kvm(&[]);
    let of = |start| fingerprints(&fixture, &Fake { start, ..CROSVM }, "/").numbers();
    assert_eq!(of(5000), of(5000));
    assert_ne!(of(5000)[0], of(6000)[0]);
}

#[test]
fn a_program_may_be_called_deleted() {
    let fixture = Fixture::of_kvm(&[Fake { exe: "/opt/ (deleted)", ..CROSVM }]);
    fixture.runs_vm(100, 1);
    assert_eq!(ids(&list(&mut fixture.scan(), START)), [" (deleted)-100"]);
    fixture.put(&Fake { exe: "/", ..CROSVM });
    fixture.runs_vm(100, 1);
    assert_eq!(ids(&list(&mut fixture.scan(), START)), ["other-100"]);
}

#[test]
fn looks_at_vms_leave_time_for_kvm() {
    let fixture = Fixture::of_kvm(&[]);
    let mut scan = fixture.scan();
    list(&mut scan, START);
    fixture.put(&Fake { uid: 2000, ..CROSVM });
    fixture.runs_vm(100, 1);
    // Other users' VMs take all the time that there is, in each tick.
    let found = (1..10).find(|second| {
        (3001..=3004).for_each(|uid| scan.looks.used(Some(uid), Duration::from_secs(1)));
        !list(&mut scan, *second * TICK).is_empty()
    });
    assert!(found.is_some_and(|second| second <= 4), "{found:?}");
}
