//! Tests of accounts: identity of devices, owners, and start times.

mod moves;
mod restarts;

use std::fs;
use std::path::Path;

use rustix::param::clock_ticks_per_second;

use super::processes::Process;
use super::*;
use crate::model::{
    Batch, DeviceExit, ExitNotice, InstanceInfo, ProcessReading, Removals, TapReading, VmSet,
};

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

fn daemon(host: &Host) -> Continuity {
    Continuity::new(host.clone(), Purpose::Serve, None, Trust::default())
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

fn reading(nic: &Nic, ifindex: u32, bytes: u64) -> DeviceReading<'_> {
    DeviceReading { nic, ifindex, namespace: nic.netns.map(|_| 3), rx: tx(0), tx: tx(bytes) }
}

fn counted(bytes: u64) -> Totals {
    Totals { tx: tx(bytes), ..Totals::default() }
}

fn readings<'n>(nics: impl IntoIterator<Item = (&'n Nic, u32)>) -> Batch {
    let tap = |(nic, ifindex): (&Nic, u32)| (nic.clone(), TapReading { ifindex, ..TapReading::default() });
    Batch { taps: nics.into_iter().map(tap).collect(), namespaces: [(THERE, 3)].into(), ..Batch::default() }
}

fn vm<'n>(id: &str, process: Option<Process>, nics: impl IntoIterator<Item = &'n Nic>) -> VmSet {
    let nics = nics.into_iter().cloned().collect();
    let hypervisor_pid = process.map(|(pid, _)| pid);
    VmSet { vms: vec![InstanceInfo { id: id.into(), hypervisor_pid, nics, ..InstanceInfo::default() }] }
}

/// One tick in which a VM has a device that has sent so many bytes: returns the VM's share.
fn read(continuity: &mut Continuity, owner: &str, nic: &Nic, ifindex: u32, bytes: u64) -> u64 {
    read_after(continuity, Vec::new(), (owner, None), nic, ifindex, bytes)
}

/// The same after devices have left their namespace, and of a VM whose process is known.
fn read_after(
    continuity: &mut Continuity,
    exits: Vec<ExitNotice>,
    (owner, process): (&str, Option<Process>),
    nic: &Nic,
    ifindex: u32,
    bytes: u64,
) -> u64 {
    let mut batch = Batch { exits, ..readings([(nic, ifindex)]) };
    let reading_of =
        |start_ticks| ProcessReading { start_ticks: Some(start_ticks), ..ProcessReading::default() };
    batch.processes.extend(process.map(|(pid, start_ticks)| (pid, reading_of(start_ticks))));
    let vms = vm(owner, process, [nic]);
    let mut tick = continuity.begin_tick(now(), (&vms, &batch), (&Removals::default(), &Batch::default()));
    let given = tick.account(owner, &reading(nic, ifindex, bytes)).publish(counted(bytes));
    tick.end().save();
    given.tx.bytes.unwrap()
}

/// One tick at this time in which a VM loses a device that has left its namespace.
fn lose(continuity: &mut Continuity, at: f64, nic: &Nic, ifindex: u32, bytes: u64, exit: DeviceExit) {
    let removals = Removals { vms: vm("a", None, [nic]), ifindexes: [(nic.clone(), ifindex)].into() };
    let last = Batch { nic_exits: [(nic.clone(), exit)].into(), ..readings([(nic, ifindex)]) };
    let mut tick = continuity.begin_tick(at, (&VmSet::default(), &Batch::default()), (&removals, &last));
    tick.close(exit, &reading(nic, ifindex, bytes), counted(bytes));
    tick.end().save();
}

/// One tick without VMs before which a device has left its namespace; `is_lost` when a VM loses it in this tick.
fn exit(continuity: &mut Continuity, nic: &Nic, ifindex: u32, exit: DeviceExit, is_lost: bool) {
    let batch = Batch { exits: vec![notice(nic, ifindex, exit)], ..Batch::default() };
    let ifindexes = is_lost.then(|| (nic.clone(), ifindex)).into_iter().collect();
    let removals = Removals { ifindexes, ..Removals::default() };
    continuity.begin_tick(now(), (&VmSet::default(), &batch), (&removals, &Batch::default())).end().save();
}

fn notice(nic: &Nic, ifindex: u32, exit: DeviceExit) -> ExitNotice {
    ExitNotice { netns: nic.netns, ifindex, exit }
}

fn idle(continuity: &mut Continuity, ticks: u64) {
    let (vms, batch, removals) = (VmSet::default(), Batch::default(), Removals::default());
    for _ in 0..ticks {
        continuity.begin_tick(now(), (&vms, &batch), (&removals, &batch)).end().save();
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
    assert!(continuity.accounts.is_empty());
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
    let mut continuity = Continuity::default();
    let nic = there("t");
    read(&mut continuity, "a", &nic, 7, 1000);
    idle(&mut continuity, 2 * FORGET_EVERY);
    assert_eq!(read(&mut continuity, "b", &nic, 7, 1200), 200);
}

#[test]
fn a_device_keeps_its_account_when_indexed() {
    let mut continuity = Continuity::default();
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
    let started = |continuity: &mut Continuity, start_ticks| {
        let process = ProcessReading { start_ticks: Some(start_ticks), ..ProcessReading::default() };
        let batch = Batch { processes: [(7, process)].into(), ..Batch::default() };
        let (vms, removals) = (VmSet::default(), Removals::default());
        let mut tick = continuity.begin_tick(now(), (&vms, &batch), (&removals, &Batch::default()));
        let at = tick.start_time(7, start_ticks);
        tick.end().save();
        at
    };
    let (mut continuity, ticks) = (daemon(&host), clock_ticks_per_second());
    assert_eq!(started(&mut continuity, 3 * ticks), Some(1_700_000_003.0));
    fs::write(host.proc().join("stat"), "btime 1700000100\n").unwrap();
    assert_eq!(started(&mut continuity, 3 * ticks), Some(1_700_000_003.0), "the clock was set");
    assert_eq!(started(&mut continuity, 4 * ticks), Some(1_700_000_104.0), "the pid was used again");
    let of_this_host = started(&mut Continuity::default(), 1);
    assert!(of_this_host.is_some_and(|at| at > 1e9), "this host has a boot time");
}
