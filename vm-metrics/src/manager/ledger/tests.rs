use std::fs;
use std::path::Path;

use rustix::param::clock_ticks_per_second;

use super::*;

/// A host on which devices can be made and removed.
fn host(dir: &Path) -> Host {
    Host::new(dir.join("proc"), dir.join("sys"))
}

fn tx(bytes: u64) -> FrameCounts {
    FrameCounts { bytes: Some(bytes), packets: Some(bytes / 100), ..FrameCounts::default() }
}

/// One tick in which this VM has the device and it has counted so much: what the VM is given.
fn tick(ledger: &mut Ledger, owner: &str, nic: &Nic, bytes: u64) -> u64 {
    ledger.begin_tick();
    let seen = Seen { nic, ifindex: 7, namespace: None, rx: tx(0), tx: tx(bytes) };
    let given = ledger.account(owner, &seen).publish(Totals { tx: seen.tx, ..Totals::default() });
    ledger.end_tick();
    given.tx.bytes.unwrap()
}

fn idle(ledger: &mut Ledger, ticks: u64) {
    for _ in 0..ticks {
        ledger.begin_tick();
        ledger.end_tick();
    }
}

#[test]
fn a_device_is_remembered_as_long_as_it_lives() {
    let dir = tempfile::tempdir().unwrap();
    let (host, nic) = (host(dir.path()), Nic::local("t"));
    fs::create_dir_all(host.net_device("t")).unwrap();
    let mut ledger = Ledger::new(host.clone(), Purpose::Serve);
    assert_eq!(tick(&mut ledger, "a", &nic, 1000), 1000);
    idle(&mut ledger, 3 * TIDY);
    assert_eq!(tick(&mut ledger, "b", &nic, 1200), 200);
    fs::remove_dir(host.net_device("t")).unwrap();
    idle(&mut ledger, 2 * TIDY);
    assert!(ledger.accounts.is_empty());
}

#[test]
fn another_device_with_name_and_index_of_one_before_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (host, nic) = (host(dir.path()), Nic::local("t"));
    fs::create_dir_all(host.net_device("t")).unwrap();
    let mut ledger = Ledger::new(host.clone(), Purpose::Serve);
    tick(&mut ledger, "a", &nic, 1000);
    idle(&mut ledger, 2);
    // Kept until the new one is there: so it gets another number.
    fs::rename(host.net_device("t"), host.net_device("old")).unwrap();
    fs::create_dir(host.net_device("t")).unwrap();
    assert_eq!(tick(&mut ledger, "b", &nic, 1700), 1700);
}

#[test]
fn a_device_that_is_only_renamed_stays_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path());
    fs::create_dir_all(host.net_device("t")).unwrap();
    let mut ledger = Ledger::new(host.clone(), Purpose::Serve);
    tick(&mut ledger, "a", &Nic::local("t"), 1000);
    assert_eq!(tick(&mut ledger, "b", &Nic::local("t"), 1000), 0);
    fs::rename(host.net_device("t"), host.net_device("u")).unwrap();
    assert_eq!(tick(&mut ledger, "b", &Nic::local("u"), 1010), 10);
}

#[test]
fn elsewhere_a_device_is_remembered_though_nobody_can_be_asked() {
    let mut ledger = Ledger::default();
    let nic = Nic { tap: "t".into(), netns: Some(4_026_532_001) };
    tick(&mut ledger, "a", &nic, 1000);
    idle(&mut ledger, 2 * TIDY);
    assert_eq!(tick(&mut ledger, "b", &nic, 1200), 200);
}

#[test]
fn a_process_has_started_once() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path());
    fs::create_dir_all(host.proc()).unwrap();
    fs::write(host.proc().join("stat"), "cpu 1 2\nbtime 1700000000\n").unwrap();
    let mut ledger = Ledger::new(host.clone(), Purpose::Serve);
    ledger.begin_tick();
    let ticks = clock_ticks_per_second();
    assert_eq!(ledger.started(7, 3 * ticks), Some(1_700_000_003.0));
    fs::write(host.proc().join("stat"), "btime 1700000100\n").unwrap();
    ledger.begin_tick();
    assert_eq!(ledger.started(7, 3 * ticks), Some(1_700_000_003.0), "the clock was set");
    assert_eq!(ledger.started(7, 4 * ticks), Some(1_700_000_104.0), "the pid was used again");
    let mut elsewhere = Ledger::default();
    elsewhere.begin_tick();
    assert!(elsewhere.started(7, 1).is_some_and(|at| at > 1e9), "this host says when it was booted");
}
