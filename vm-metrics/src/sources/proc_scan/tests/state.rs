//! What changes from call to call, and what may go wrong.

use std::env;
use std::fs;
use std::process::Command;
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::super::listing::MAX_PROBLEMS;
use super::*;

const SHELL: Fake = Fake { exe: "/bin/sh", args: "sh start.sh", ..Fake::QEMU };

#[test]
fn the_next_scan_sees_starts_and_ends() {
    let fixture = Fixture::new();
    let mut scan = fixture.scan();
    assert_eq!(list(&mut scan, START), []);
    fixture.put(&Fake { pid: 101, args: "kvm -name db", ..Fake::QEMU });
    fixture.put(&Fake::QEMU);
    assert_eq!(ids(&list(&mut scan, TICK)), ["web", "db"]);
    fixture.end(100);
    assert_eq!(ids(&list(&mut scan, 2 * TICK)), ["db"]);
    fixture.put(&Fake { pid: 101, args: "kvm -name db", state: 'Z', ..Fake::QEMU });
    assert_eq!(list(&mut scan, 3 * TICK), []);
    fixture.end(101);
    list(&mut scan, 4 * TICK);
    assert!(scan.processes.is_empty());
}

#[test]
fn the_next_scan_sees_a_young_processs_exec() {
    let fixture = Fixture::with(&[SHELL]);
    let mut scan = fixture.scan();
    assert_eq!(list(&mut scan, START), []);
    fixture.put(&Fake::QEMU);
    assert_eq!(ids(&list(&mut scan, YOUNG - TICK)), ["web"]);
}

#[test]
fn a_full_scan_sees_an_old_processs_exec() {
    let fixture = Fixture::with(&[SHELL]);
    let mut scan = fixture.scan();
    list(&mut scan, START);
    fixture.put(&Fake::QEMU);
    assert_eq!(list(&mut scan, YOUNG), []);
    assert_eq!(ids(&list(&mut scan, FULL_SCAN_INTERVAL)), ["web"]);
    // From then on, it is young again: its TAP may be late.
    fixture.descriptor(100, 9, "/dev/net/tun", Some("tap0"));
    assert_eq!(taps(&list(&mut scan, FULL_SCAN_INTERVAL + TICK)[0]), ["tap0"]);
}

#[test]
fn another_start_time_is_another_vm() {
    let fixture = Fixture::with(&[Fake::QEMU]);
    let mut scan = fixture.scan();
    list(&mut scan, START);
    list(&mut scan, YOUNG);
    fixture.put(&Fake { args: "kvm -name other", start: 9000, ..Fake::QEMU });
    assert_eq!(ids(&list(&mut scan, YOUNG + TICK)), ["other"]);
    fixture.put(&Fake { start: 9001, ..SHELL });
    assert_eq!(list(&mut scan, YOUNG + 2 * TICK), []);
}

/// They are also read while the VM is young.
#[test]
fn nics_are_read_again_when_devices_change() {
    let fixture = Fixture::with(&[Fake::QEMU]);
    let mut scan = fixture.scan();
    assert_eq!(taps(&list(&mut scan, START)[0]), [""; 0]);

    fixture.descriptor(100, 9, "/dev/net/tun", Some("tap0"));
    assert_eq!(taps(&list(&mut scan, YOUNG - TICK)[0]), ["tap0"]);

    fixture.descriptor(100, 10, "/dev/net/tun", Some("tap1"));
    assert_eq!(taps(&list(&mut scan, YOUNG)[0]), ["tap0"]);
    fixture.add_device("tap1");
    assert_eq!(taps(&list(&mut scan, YOUNG + TICK)[0]), ["tap0", "tap1"]);

    fixture.descriptor(100, 9, "/dev/net/tun", Some("renamed"));
    assert_eq!(taps(&list(&mut scan, YOUNG + 2 * TICK)[0]), ["tap0", "tap1"]);
    assert_eq!(taps(&list(&mut scan, FULL_SCAN_INTERVAL)[0]), ["renamed", "tap1"]);
}

#[test]
fn a_moved_tap_has_one_vm() {
    let fixture = Fixture::with(&[Fake { taps: &[(9, "tap0"), (10, "tap1")], ..Fake::QEMU }]);
    let mut scan = fixture.scan();
    list(&mut scan, START);
    list(&mut scan, YOUNG);
    fixture.descriptor(100, 9, "/dev/net/tun", Some(""));
    fixture.put(&Fake { pid: 101, start: 6000, taps: &[(9, "tap0")], ..Fake::QEMU });
    let vms = list(&mut scan, YOUNG + TICK);
    assert_eq!(vms.iter().map(taps).collect::<Vec<_>>(), [["tap1"], ["tap0"]]);
}

#[test]
fn each_scan_reports_an_unreadable_process() {
    let fixture = Fixture::with(&[Fake::QEMU, Fake { pid: 101, start: 6000, ..Fake::QEMU }]);
    let stat = fixture.process(101).join("stat");
    let good = fs::read(&stat).unwrap();
    fixture.break_file(&stat);
    let mut scan = fixture.scan();
    for now in [START, TICK, YOUNG, YOUNG + TICK] {
        let listing = scan.list_at(now).unwrap();
        assert_eq!(ids(&listing.instances), ["web"]);
        let problem = listing.problems[0].to_string();
        assert!(listing.problems.len() == 1 && problem.ends_with("/101/stat: not a plain file"), "{problem}");
    }
    fs::remove_dir(&stat).unwrap();
    fs::write(&stat, good).unwrap();
    assert_eq!(ids(&list(&mut scan, FULL_SCAN_INTERVAL)), ["web", "web"]);
}

#[test]
fn a_malformed_stat_is_a_problem() {
    let fixture = Fixture::with(&[Fake::QEMU]);
    fs::write(fixture.process(100).join("stat"), "100 (qemu) S 1").unwrap();
    let problem = problems(&mut fixture.scan(), START).join("");
    assert!(problem.ends_with("/100/stat: field ppid is missing or cut short"), "{problem}");
}

#[test]
fn one_failed_read_keeps_a_known_vm() {
    let fixture = Fixture::with(&[Fake { taps: &[(9, "tap0")], ..Fake::QEMU }]);
    let mut scan = fixture.scan();
    let vms = list(&mut scan, START);
    for (file, now) in [("fd", TICK), ("stat", 3 * TICK), ("stat", FULL_SCAN_INTERVAL)] {
        let backup = fixture.path("backup");
        let path = fixture.process(100).join(file);
        fs::rename(&path, &backup).unwrap();
        // A link to itself can be neither read nor listed, and is not gone.
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let listing = scan.list_at(now).unwrap();
        assert_eq!(listing.instances, vms, "{file}");
        assert_eq!(listing.problems.len(), 1, "{file}");
        fs::remove_file(&path).unwrap();
        fs::rename(&backup, &path).unwrap();
    }
    assert_eq!(list(&mut scan, 2 * FULL_SCAN_INTERVAL), vms);
}

#[test]
fn a_vanished_process_is_no_problem() {
    for file in ["exe", "stat", "cmdline", "fd"] {
        let fixture = Fixture::with(&[Fake::QEMU]);
        let path = fixture.process(100).join(file);
        if file == "fd" {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        assert_eq!(list(&mut fixture.scan(), START), [], "{file}");
    }
}

#[test]
fn many_problems_are_counted() {
    let fixture = Fixture::new();
    for pid in 1..=40 {
        fixture.put(&Fake { pid, ..Fake::QEMU });
        fixture.break_file(&fixture.process(pid).join("stat"));
    }
    let problems = problems(&mut fixture.scan(), START);
    assert_eq!(problems.len(), MAX_PROBLEMS + 1);
    assert_eq!(problems[MAX_PROBLEMS], "and 8 more problems");
}

/// A missing sysfs does not.
#[test]
fn a_missing_procfs_fails_the_listing() {
    let fixture = Fixture::with(&[Fake::QEMU]);
    fs::remove_dir_all(fixture.host().sys()).unwrap();
    let mut scan = fixture.scan();
    let listing = scan.list_at(START).unwrap();
    assert_eq!(ids(&listing.instances), ["web"]);
    assert!(listing.problems[0].to_string().contains("cannot list "));
    fs::remove_dir_all(fixture.host().proc()).unwrap();
    assert!(scan.list_at(TICK).unwrap_err().to_string().contains("/proc: No such file or directory"));
}

#[test]
fn a_list_that_failed_forgets_nothing() {
    let fixture = Fixture::with(&[Fake::QEMU]);
    let mut scan = fixture.scan();
    let vms = list(&mut scan, START);
    let away = fixture.path("away");
    fs::rename(fixture.host().proc(), &away).unwrap();
    assert!(scan.list_at(TICK).is_err());
    fs::rename(&away, fixture.host().proc()).unwrap();
    assert_eq!(list(&mut scan, 2 * TICK), vms);
}

/// The limit is the process's, so this runs in one of its own.
#[test]
fn without_a_free_descriptor_the_list_stays() {
    const CHILD: &str = "TESTKIT_NO_DESCRIPTORS";
    if env::var_os(CHILD).is_none() {
        let name = thread::current().name().unwrap().to_owned();
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&[child.stdout, child.stderr].concat()).into_owned();
        assert!(child.status.success() && output.contains("1 passed"), "{output}");
        return;
    }
    let fixture = Fixture::with(&[Fake::QEMU, Fake { pid: 101, start: 6000, ..SHELL }]);
    let mut scan = fixture.scan();
    let vms = list(&mut scan, START);
    let usual = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..usual }).unwrap();
    let listings = [TICK, FULL_SCAN_INTERVAL].map(|now| scan.list_at(now));
    setrlimit(Resource::Nofile, usual).unwrap();
    for listing in listings {
        let listing = listing.unwrap();
        assert_eq!(listing.instances, vms);
        let problem = listing.problems[0].to_string();
        assert!(problem.ends_with("Too many open files (os error 24)"), "{problem}");
    }
    fixture.end(100);
    assert_eq!(list(&mut scan, FULL_SCAN_INTERVAL + TICK), []);
}
