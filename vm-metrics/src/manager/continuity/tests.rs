//! Tests of accounts: identity of devices, owners, and start times.

pub(in crate::manager) mod daemon;
mod moves;
mod restarts;

use std::fs;
use std::path::Path;

use rustix::param::clock_ticks_per_second;

use super::processes::Process;
use super::*;
use crate::model::{Batch, InstanceInfo, NicKind, NicReadings, ProcessReading, VmSet};
use daemon::Daemon;

/// The inode of another network namespace.
const THERE: u64 = 4_026_532_001;

/// A host on which devices can be made and removed.
fn host(dir: &Path) -> Host {
    Host::new(dir.join("proc"), dir.join("sys"))
}

/// The same host with one device.
fn host_with(dir: &Path, tap: &str) -> Host {
    let host = host(dir);
    fs::create_dir_all(host.net_device(tap)).unwrap();
    host
}

fn daemon(host: &Host) -> Daemon {
    Daemon::new(host, Purpose::Serve, None)
}

fn there(tap: &str) -> Nic {
    Nic { tap: tap.into(), netns: Some(THERE) }
}

fn now() -> f64 {
    unix_seconds(SystemTime::now())
}

fn tx(bytes: u64) -> FrameCounts {
    FrameCounts { bytes: Some(bytes), packets: Some(bytes / 100), ..FrameCounts::default() }
}

fn reading(nic: &Nic, device: Device, bytes: u64) -> DeviceReading<'_> {
    DeviceReading { nic, device, rx: tx(0), tx: tx(bytes) }
}

fn counted(bytes: u64) -> Totals {
    Totals { tx: tx(bytes), ..Totals::default() }
}

/// The readings of interfaces with these devices.
fn readings(devices: &[Device]) -> Batch {
    let nic = |device: &Device| NicReadings { device: Some(*device), ..NicReadings::default() };
    Batch { nics: devices.iter().map(nic).collect(), ..Batch::default() }
}

fn vm<'n>(id: &str, process: Option<Process>, nics: impl IntoIterator<Item = &'n Nic>) -> VmSet {
    let nics = nics.into_iter().cloned().collect();
    let hypervisor_pid = process.map(|(pid, _)| pid);
    VmSet { vms: vec![InstanceInfo { id: id.into(), hypervisor_pid, nics, ..InstanceInfo::default() }] }
}

/// One tick in which a VM has a device that has sent so many bytes: returns the VM's share.
fn read(daemon: &mut Daemon, owner: &str, nic: &Nic, ifindex: u32, bytes: u64) -> u64 {
    read_after(daemon, &[], (owner, None), nic, ifindex, bytes)
}

/// The same after devices have left their namespace, and of a VM whose process is known.
fn read_after(
    daemon: &mut Daemon,
    exits: &[(&Nic, u32, DeviceExit)],
    (owner, process): (&str, Option<Process>),
    nic: &Nic,
    ifindex: u32,
    bytes: u64,
) -> u64 {
    let exits = daemon.begin_tick(exits);
    let device = daemon.find(nic, ifindex, NicKind::Tap);
    let mut batch = Batch { exits, ..readings(&[device]) };
    let reading_of =
        |start_ticks| ProcessReading { start_ticks: Some(start_ticks), ..ProcessReading::default() };
    batch.processes.extend(process.map(|(pid, start_ticks)| (pid, reading_of(start_ticks))));
    let mut tick = daemon.continuity.begin_tick(now(), &vm(owner, process, [nic]), &VmSet::default(), &batch);
    let given = tick.account(owner, &reading(nic, device, bytes)).publish(counted(bytes));
    tick.end().save();
    given.tx.bytes.unwrap()
}

/// One tick at this time in which a VM loses a device that has left its namespace.
fn lose(daemon: &mut Daemon, at: f64, nic: &Nic, ifindex: u32, bytes: u64, exit: DeviceExit) {
    let exits = daemon.begin_tick(&[]);
    let device = daemon.lose(nic, ifindex);
    let batch = Batch { exits, ..readings(&[device]) };
    let mut tick = daemon.continuity.begin_tick(at, &VmSet::default(), &vm("a", None, [nic]), &batch);
    tick.close(exit, device.id, counted(bytes));
    tick.end().save();
}

/// One tick without VMs before which a device has left its namespace.
fn exit(daemon: &mut Daemon, nic: &Nic, ifindex: u32, exit: DeviceExit) {
    let batch = Batch { exits: daemon.begin_tick(&[(nic, ifindex, exit)]), ..Batch::default() };
    daemon.continuity.begin_tick(now(), &VmSet::default(), &VmSet::default(), &batch).end().save();
}

fn idle(daemon: &mut Daemon, ticks: u64) {
    for _ in 0..ticks {
        let batch = Batch { exits: daemon.begin_tick(&[]), ..Batch::default() };
        daemon.continuity.begin_tick(now(), &VmSet::default(), &VmSet::default(), &batch).end().save();
    }
}

#[test]
fn an_account_lives_as_long_as_its_device() {
    let dir = tempfile::tempdir().unwrap();
    let (host, nic) = (host_with(dir.path(), "t"), Nic::local("t"));
    let mut continuity = daemon(&host);
    assert_eq!(read(&mut continuity, "a", &nic, 7, 1000), 1000);
    idle(&mut continuity, 3 * FORGET_EVERY);
    assert_eq!(read(&mut continuity, "b", &nic, 7, 1200), 200);
    fs::remove_dir(host.net_device("t")).unwrap();
    idle(&mut continuity, 2 * FORGET_EVERY);
    assert!(continuity.continuity.accounts.is_empty());
}

/// It has the name and the index of the one before.
#[test]
fn another_device_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (host, nic) = (host_with(dir.path(), "t"), Nic::local("t"));
    let mut continuity = daemon(&host);
    read(&mut continuity, "a", &nic, 7, 1000);
    idle(&mut continuity, 2);
    // Kept until the new one is there: so it gets another number.
    fs::rename(host.net_device("t"), host.net_device("old")).unwrap();
    fs::create_dir(host.net_device("t")).unwrap();
    assert_eq!(read(&mut continuity, "b", &nic, 7, 1700), 1700);
}

#[test]
fn a_renamed_device_keeps_its_account() {
    let dir = tempfile::tempdir().unwrap();
    let host = host_with(dir.path(), "t");
    let mut continuity = daemon(&host);
    read(&mut continuity, "a", &Nic::local("t"), 7, 1000);
    assert_eq!(read(&mut continuity, "b", &Nic::local("t"), 7, 1000), 0);
    fs::rename(host.net_device("t"), host.net_device("u")).unwrap();
    assert_eq!(read(&mut continuity, "b", &Nic::local("u"), 7, 1010), 10);
}

#[test]
fn a_device_renamed_without_vm_keeps_its_account() {
    let dir = tempfile::tempdir().unwrap();
    let host = host_with(dir.path(), "t");
    let mut continuity = daemon(&host);
    assert_eq!(read(&mut continuity, "a", &Nic::local("t"), 7, 1000), 1000);
    idle(&mut continuity, 1);
    fs::rename(host.net_device("t"), host.net_device("free")).unwrap();
    idle(&mut continuity, 3 * FORGET_EVERY);
    fs::rename(host.net_device("free"), host.net_device("u")).unwrap();
    assert_eq!(read(&mut continuity, "b", &Nic::local("u"), 7, 1200), 200);
}

/// The devices of another namespace cannot be listed from here.
#[test]
fn accounts_of_other_namespaces_stay() {
    let mut continuity = Daemon::default();
    let nic = there("t");
    read(&mut continuity, "a", &nic, 7, 1000);
    idle(&mut continuity, 2 * FORGET_EVERY);
    assert_eq!(read(&mut continuity, "b", &nic, 7, 1200), 200);
}

#[test]
fn a_device_keeps_its_account_when_indexed() {
    let mut continuity = Daemon::default();
    let nic = there("t");
    assert_eq!(read(&mut continuity, "a", &nic, 0, 1000), 1000);
    assert_eq!(read(&mut continuity, "b", &nic, 0, 1200), 200);
    assert_eq!(read(&mut continuity, "b", &nic, 7, 1300), 300);
}

#[test]
fn a_process_keeps_its_start_time() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path());
    fs::create_dir_all(host.proc()).unwrap();
    fs::write(host.proc().join("stat"), "cpu 1 2\nbtime 1700000000\n").unwrap();
    let started = |daemon: &mut Daemon, start_ticks| {
        let process = ProcessReading { start_ticks: Some(start_ticks), ..ProcessReading::default() };
        let batch = Batch { processes: [(7, process)].into(), ..Batch::default() };
        let mut tick = daemon.continuity.begin_tick(now(), &VmSet::default(), &VmSet::default(), &batch);
        let at = tick.start_time(7, start_ticks);
        tick.end().save();
        at
    };
    let (mut continuity, ticks) = (daemon(&host), clock_ticks_per_second());
    assert_eq!(started(&mut continuity, 3 * ticks), Some(1_700_000_003.0));
    fs::write(host.proc().join("stat"), "btime 1700000100\n").unwrap();
    assert_eq!(started(&mut continuity, 3 * ticks), Some(1_700_000_003.0), "the clock was set");
    assert_eq!(started(&mut continuity, 4 * ticks), Some(1_700_000_104.0), "the pid was used again");
    let of_this_host = started(&mut Daemon::default(), 1);
    assert!(of_this_host.is_some_and(|at| at > 1e9), "this host has a boot time");
}
