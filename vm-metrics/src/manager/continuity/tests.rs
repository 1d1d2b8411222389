use std::fs;
use std::path::Path;

use rustix::param::clock_ticks_per_second;

use super::*;
use crate::model::{Health, InstanceInfo, ProcessReading, Trust};

/// A host on which devices can be made and removed.
fn host(dir: &Path) -> Host {
    Host::new(dir.join("proc"), dir.join("sys"))
}

fn tx(bytes: u64) -> FrameCounts {
    FrameCounts { bytes: Some(bytes), packets: Some(bytes / 100), ..FrameCounts::default() }
}

/// One tick in which this VM has the device and it has counted so much: what the VM is given.
fn tick(continuity: &mut Continuity, owner: &str, nic: &Nic, bytes: u64) -> u64 {
    continuity.begin_tick();
    let reading = DeviceReading { nic, ifindex: 7, namespace: None, rx: tx(0), tx: tx(bytes) };
    let given = continuity.account(owner, &reading).publish(Totals { tx: reading.tx, ..Totals::default() });
    continuity.end_tick();
    given.tx.bytes.unwrap()
}

fn idle(continuity: &mut Continuity, ticks: u64) {
    for _ in 0..ticks {
        continuity.begin_tick();
        continuity.end_tick();
    }
}

#[test]
fn a_device_is_remembered_as_long_as_it_lives() {
    let dir = tempfile::tempdir().unwrap();
    let (host, nic) = (host(dir.path()), Nic::local("t"));
    fs::create_dir_all(host.net_device("t")).unwrap();
    let mut continuity = Continuity::new(host.clone(), Purpose::Serve, None, Trust::default());
    assert_eq!(tick(&mut continuity, "a", &nic, 1000), 1000);
    idle(&mut continuity, 3 * TIDY);
    assert_eq!(tick(&mut continuity, "b", &nic, 1200), 200);
    fs::remove_dir(host.net_device("t")).unwrap();
    idle(&mut continuity, 2 * TIDY);
    assert!(continuity.accounts.is_empty());
}

#[test]
fn another_device_with_name_and_index_of_one_before_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (host, nic) = (host(dir.path()), Nic::local("t"));
    fs::create_dir_all(host.net_device("t")).unwrap();
    let mut continuity = Continuity::new(host.clone(), Purpose::Serve, None, Trust::default());
    tick(&mut continuity, "a", &nic, 1000);
    idle(&mut continuity, 2);
    // QuotaItem until the new one is there: so it gets another number.
    fs::rename(host.net_device("t"), host.net_device("old")).unwrap();
    fs::create_dir(host.net_device("t")).unwrap();
    assert_eq!(tick(&mut continuity, "b", &nic, 1700), 1700);
}

#[test]
fn a_device_that_is_only_renamed_stays_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path());
    fs::create_dir_all(host.net_device("t")).unwrap();
    let mut continuity = Continuity::new(host.clone(), Purpose::Serve, None, Trust::default());
    tick(&mut continuity, "a", &Nic::local("t"), 1000);
    assert_eq!(tick(&mut continuity, "b", &Nic::local("t"), 1000), 0);
    fs::rename(host.net_device("t"), host.net_device("u")).unwrap();
    assert_eq!(tick(&mut continuity, "b", &Nic::local("u"), 1010), 10);
}

#[test]
fn a_device_without_a_vm_that_is_renamed_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path());
    fs::create_dir_all(host.net_device("t")).unwrap();
    let mut continuity = Continuity::new(host.clone(), Purpose::Serve, None, Trust::default());
    assert_eq!(tick(&mut continuity, "a", &Nic::local("t"), 1000), 1000);
    idle(&mut continuity, 1);
    fs::rename(host.net_device("t"), host.net_device("free")).unwrap();
    idle(&mut continuity, 3 * TIDY);
    fs::rename(host.net_device("free"), host.net_device("u")).unwrap();
    assert_eq!(tick(&mut continuity, "b", &Nic::local("u"), 1200), 200);
}

#[test]
fn elsewhere_a_device_is_remembered_though_nobody_can_be_asked() {
    let mut continuity = Continuity::default();
    let nic = Nic { tap: "t".into(), netns: Some(4_026_532_001) };
    tick(&mut continuity, "a", &nic, 1000);
    idle(&mut continuity, 2 * TIDY);
    assert_eq!(tick(&mut continuity, "b", &nic, 1200), 200);
}

#[test]
fn a_process_has_started_once() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path());
    fs::create_dir_all(host.proc()).unwrap();
    fs::write(host.proc().join("stat"), "cpu 1 2\nbtime 1700000000\n").unwrap();
    let mut continuity = Continuity::new(host.clone(), Purpose::Serve, None, Trust::default());
    continuity.begin_tick();
    let ticks = clock_ticks_per_second();
    assert_eq!(continuity.start_time(7, 3 * ticks), Some(1_700_000_003.0));
    fs::write(host.proc().join("stat"), "btime 1700000100\n").unwrap();
    continuity.begin_tick();
    assert_eq!(continuity.start_time(7, 3 * ticks), Some(1_700_000_003.0), "the clock was set");
    assert_eq!(continuity.start_time(7, 4 * ticks), Some(1_700_000_104.0), "the pid was used again");
    let mut elsewhere = Continuity::default();
    elsewhere.begin_tick();
    assert!(elsewhere.start_time(7, 1).is_some_and(|at| at > 1e9), "this host says when it was booted");
}

/// A host that says which boot it is in.
fn booted(dir: &Path, boot_id: &str) -> Host {
    let host = host(dir);
    for (file, content) in [("sys/kernel/random/boot_id", boot_id), ("thread-self/ns/net", "")] {
        let path = host.proc().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    host
}

#[test]
fn the_next_daemon_knows_whose_the_counts_were() {
    let dir = tempfile::tempdir().unwrap();
    let (host, nic) = (booted(dir.path(), "one\n"), Nic::local("t"));
    fs::create_dir_all(host.net_device("t")).unwrap();
    let continuity =
        |host: &Host| Continuity::new(host.clone(), Purpose::Serve, Some(dir.path()), Trust::default());
    let mut first = continuity(&host);
    assert_eq!(tick(&mut first, "a", &nic, 1000), 1000);
    assert_eq!(tick(&mut first, "b", &nic, 1200), 200);
    let mut second = continuity(&host);
    assert_eq!(tick(&mut second, "b", &nic, 1300), 300);
    assert_eq!(tick(&mut continuity(&host), "c", &nic, 1500), 0, "what passed meanwhile is nobody's");

    let mut looks = Continuity::new(host.clone(), Purpose::Look, Some(dir.path()), Trust::default());
    assert_eq!(tick(&mut looks, "b", &nic, 1500), 1500, "a look is the device's own word");
    // QuotaItem until the new one is there: so it gets another number.
    fs::rename(host.net_device("t"), host.net_device("old")).unwrap();
    fs::create_dir(host.net_device("t")).unwrap();
    assert_eq!(tick(&mut continuity(&host), "c", &nic, 1600), 1600, "another device");
}

/// This process is the VM of that id.
fn known_as(continuity: &mut Continuity, id: &str, (pid, start_ticks): (u32, u64)) {
    let vm = InstanceInfo { id: id.into(), hypervisor_pid: Some(pid), ..InstanceInfo::default() };
    let reading = ProcessReading { start_ticks: Some(start_ticks), ..ProcessReading::default() };
    let batch = Batch { processes: [(pid, reading)].into(), ..Batch::default() };
    continuity.set_vms(&VmSet { vms: vec![vm] }, &batch);
}

#[test]
fn a_process_that_has_another_id_after_a_restart_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (host, nic) = (booted(dir.path(), "one\n"), Nic::local("t"));
    fs::create_dir_all(host.net_device("t")).unwrap();
    let daemon = |id: &str, process, bytes| {
        let mut continuity =
            Continuity::new(host.clone(), Purpose::Serve, Some(dir.path()), Trust::default());
        known_as(&mut continuity, id, process);
        tick(&mut continuity, id, &nic, bytes)
    };
    assert_eq!(daemon("z", (7, 90), 1000), 1000);
    assert_eq!(daemon("a", (7, 100), 1200), 0, "the pid was used again: another owner");
    assert_eq!(daemon("b", (7, 100), 1300), 100);
    assert_eq!(daemon("b", (7, 100), 1400), 200);
}

#[test]
fn what_is_of_another_boot_or_broken_is_as_if_it_were_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let (host, nic) = (booted(dir.path(), "one\n"), Nic::local("t"));
    fs::create_dir_all(host.net_device("t")).unwrap();
    let continuity =
        |host: &Host| Continuity::new(host.clone(), Purpose::Serve, Some(dir.path()), Trust::default());
    let mut first = continuity(&host);
    tick(&mut first, "a", &nic, 1000);
    tick(&mut first, "b", &nic, 1200);
    let written = fs::read_dir(dir.path()).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        path.to_string_lossy().ends_with(".json").then_some(path)
    });
    let written = written.expect("a file");
    fs::write(&written, "{\"boot_id\": \"one\", \"devices\": [{}]}").unwrap();
    assert_eq!(tick(&mut continuity(&host), "b", &nic, 1300), 1300);
    assert_eq!(tick(&mut continuity(&host), "b", &nic, 1300), 1300, "written anew");
    let other = booted(dir.path(), "two\n");
    tick(&mut first, "c", &nic, 1400);
    assert_eq!(tick(&mut continuity(&other), "c", &nic, 1500), 1500);
    let nowhere =
        Continuity::new(host.clone(), Purpose::Serve, Some(&dir.path().join("nowhere")), Trust::default());
    assert_eq!(nowhere.state_health().expect("a health").state, Health::Disabled);
}

#[test]
fn a_device_that_has_moved_may_wait_for_its_next_vm() {
    let mut continuity = Continuity::default();
    let moves = |continuity: &mut Continuity, ifindex| {
        read(continuity, "a", &Nic::local("t"), 7, 1000);
        // An hour ago.
        continuity.now -= 3600.0;
        leaves(continuity, &Nic::local("t"), 7, 1000, DeviceExit::Moved { ifindex });
    };
    moves(&mut continuity, 9);
    assert_eq!(read(&mut continuity, "b", &there("t"), 9, 1200), 200);
    moves(&mut continuity, 8);
    assert_eq!(
        read(&mut continuity, "c", &there("u"), 8, 1200),
        1200,
        "by another name it is hardly the same"
    );
}

/// Daemons one after the other, of which the first has published 1000 bytes of a device in its namespace.
fn daemons(dir: &Path) -> (impl Fn() -> Continuity, Host) {
    let host = booted(dir, "one\n");
    fs::create_dir_all(host.net_device("t")).unwrap();
    let (of_host, state) = (host.clone(), dir.to_owned());
    let daemon = move || Continuity::new(of_host.clone(), Purpose::Serve, Some(&state), Trust::default());
    (daemon, host)
}

/// The kernel says so before anything is merged.
#[test]
fn a_move_before_the_first_tick_gives_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, host) = daemons(dir.path());
    read(&mut daemon(), "a", &Nic::local("t"), 7, 1000);
    fs::remove_dir(host.net_device("t")).unwrap();
    let mut second = daemon();
    hear(&mut second, &Nic::local("t"), 7, DeviceExit::Moved { ifindex: 9 }, &[]);
    assert_eq!(read(&mut second, "b", &there("t"), 9, 1200), 0, "nobody knows whose it was");
    assert_eq!(read(&mut second, "b", &there("t"), 9, 1300), 100);
}

#[test]
fn the_next_daemon_knows_what_is_on_its_way() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, _) = daemons(dir.path());
    let mut first = daemon();
    read(&mut first, "a", &Nic::local("t"), 7, 1000);
    leaves(&mut first, &Nic::local("t"), 7, 1000, DeviceExit::Moved { ifindex: 9 });
    idle(&mut first, 1);
    let mut second = daemon();
    idle(&mut second, 1);
    assert_eq!(read(&mut second, "b", &there("t"), 9, 1200), 200);
    assert_eq!(read(&mut daemon(), "b", &there("t"), 9, 1300), 300, "and that it has arrived");
}

const THERE: u64 = 4_026_532_001;

fn there(tap: &str) -> Nic {
    Nic { tap: tap.into(), netns: Some(THERE) }
}

/// One tick in which a device is read that has counted so much, by this index.
fn read(continuity: &mut Continuity, owner: &str, nic: &Nic, ifindex: u32, bytes: u64) -> u64 {
    let namespace = nic.netns.map(|_| 3);
    let reading = DeviceReading { nic, ifindex, namespace, rx: tx(0), tx: tx(bytes) };
    continuity.begin_tick();
    let given = continuity.account(owner, &reading).publish(Totals { tx: reading.tx, ..Totals::default() });
    continuity.end_tick();
    given.tx.bytes.unwrap()
}

fn leaves(continuity: &mut Continuity, nic: &Nic, ifindex: u32, bytes: u64, exit: DeviceExit) {
    let reading = DeviceReading { nic, ifindex, namespace: nic.netns.map(|_| 3), rx: tx(0), tx: tx(bytes) };
    continuity.close(exit, &reading, Totals { tx: reading.tx, ..Totals::default() });
}

#[test]
fn a_device_that_is_read_by_name_and_then_by_index_stays_what_it_is() {
    let mut continuity = Continuity::default();
    let nic = there("t");
    assert_eq!(read(&mut continuity, "a", &nic, 0, 1000), 1000);
    assert_eq!(read(&mut continuity, "b", &nic, 0, 1200), 200);
    assert_eq!(read(&mut continuity, "b", &nic, 7, 1300), 300);
}

#[test]
fn what_a_device_counted_elsewhere_is_published_once_there_and_back() {
    let mut continuity = Continuity::default();
    let (here, there) = (there("t"), Nic { netns: Some(THERE + 1), ..there("t") });
    assert_eq!(read(&mut continuity, "a", &here, 7, 1000), 1000);
    leaves(&mut continuity, &here, 7, 1000, DeviceExit::Moved { ifindex: 9 });
    assert_eq!(read(&mut continuity, "a", &there, 8, 5000), 5000, "another device");
    assert_eq!(read(&mut continuity, "b", &there, 9, 1300), 300, "whoever has it now");
    leaves(&mut continuity, &there, 9, 1300, DeviceExit::Moved { ifindex: 7 });
    assert_eq!(read(&mut continuity, "a", &here, 7, 1350), 50);
    leaves(&mut continuity, &here, 7, 1350, DeviceExit::Deleted);
    assert_eq!(read(&mut continuity, "b", &here, 7, 2000), 2000, "another device with its index");
}

/// A device of this process's own namespace goes where nobody looks, and comes back.
#[test]
fn a_device_that_comes_back_unseen_goes_on() {
    for restarts in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (host, nic) = (booted(dir.path(), "one\n"), Nic::local("t"));
        fs::create_dir_all(host.net_devices()).unwrap();
        let daemon = || Continuity::new(host.clone(), Purpose::Serve, Some(dir.path()), Trust::default());
        let mut continuity = daemon();
        idle(&mut continuity, 1);
        fs::create_dir_all(host.net_device("t")).unwrap();
        assert_eq!(read(&mut continuity, "a", &nic, 7, 1000), 1000);
        fs::rename(host.net_device("t"), dir.path().join("elsewhere")).unwrap();
        leaves(&mut continuity, &nic, 7, 1000, DeviceExit::Moved { ifindex: 9 });
        idle(&mut continuity, 1);
        if restarts {
            continuity = daemon();
            idle(&mut continuity, 1);
        }
        fs::create_dir(host.net_device("t")).unwrap();
        assert_eq!(read(&mut continuity, "a", &nic, 9, 1100), 1100, "another device of its name");
        leaves(&mut continuity, &nic, 9, 1100, DeviceExit::Deleted);
        fs::remove_dir(host.net_device("t")).unwrap();
        fs::rename(dir.path().join("elsewhere"), host.net_device("t")).unwrap();
        assert_eq!(read(&mut continuity, "a", &nic, 8, 1200), 200, "restarts: {restarts}");
    }
}

#[test]
fn elsewhere_a_device_comes_back_by_its_index() {
    let (mut continuity, nic) = (Continuity::default(), there("t"));
    read(&mut continuity, "a", &nic, 7, 1000);
    leaves(&mut continuity, &nic, 7, 1000, DeviceExit::Moved { ifindex: 9 });
    assert_eq!(read(&mut continuity, "a", &there("u"), 9, 1100), 1100, "another device with its index");
    leaves(&mut continuity, &there("u"), 9, 1100, DeviceExit::Deleted);
    assert_eq!(read(&mut continuity, "a", &nic, 9, 1200), 200);
}

/// What the kernel has said by the next tick, in which these leave their VM.
fn hear(continuity: &mut Continuity, nic: &Nic, ifindex: u32, exit: DeviceExit, removals: &[&Nic]) {
    let exits = vec![ExitNotice { netns: nic.netns, ifindex, exit }];
    let ifindexes = removals.iter().map(|nic| ((*nic).clone(), ifindex)).collect();
    let batch = Batch { exits, ..Batch::default() };
    continuity.close_exited(&batch, &Removals { ifindexes, ..Removals::default() });
}

#[test]
fn a_device_that_was_deleted_without_a_vm_is_not_the_next_one_with_its_index() {
    let mut continuity = Continuity::default();
    let nic = there("t");
    read(&mut continuity, "a", &nic, 7, 1000);
    idle(&mut continuity, 1);
    hear(&mut continuity, &nic, 7, DeviceExit::Deleted, &[]);
    assert_eq!(read(&mut continuity, "b", &nic, 7, 1200), 1200);
    hear(&mut continuity, &nic, 7, DeviceExit::Deleted, &[&nic]);
    assert_eq!(read(&mut continuity, "c", &nic, 7, 1300), 100, "the last words come first");
}

#[test]
fn a_device_that_is_there_was_not_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (host, nic) = (host(dir.path()), Nic::local("t"));
    fs::create_dir_all(host.net_device("t")).unwrap();
    let mut continuity = Continuity::new(host.clone(), Purpose::Serve, None, Trust::default());
    read(&mut continuity, "a", &nic, 7, 1000);
    // Said of the one before, which had its index.
    hear(&mut continuity, &nic, 7, DeviceExit::Deleted, &[]);
    assert_eq!(read(&mut continuity, "b", &nic, 7, 1200), 200);
}

#[test]
fn what_moves_without_a_vm_takes_nothing_along() {
    let dir = tempfile::tempdir().unwrap();
    let (host, nic) = (booted(dir.path(), "one\n"), Nic::local("t"));
    fs::create_dir_all(host.net_device("t")).unwrap();
    let continuity = || Continuity::new(host.clone(), Purpose::Serve, Some(dir.path()), Trust::default());
    let mut first = continuity();
    read(&mut first, "a", &nic, 7, 1000);
    let mut second = continuity();
    fs::remove_dir(host.net_device("t")).unwrap();
    for (continuity, given) in [(&mut first, 200), (&mut second, 0)] {
        idle(continuity, 1);
        hear(continuity, &nic, 7, DeviceExit::Moved { ifindex: 9 }, &[]);
        assert_eq!(read(continuity, "b", &there("u"), 9, 1200), given, "what nobody saw is nobody's");
        assert_eq!(read(continuity, "b", &there("u"), 9, 1250), given + 50);
    }
}

/// One tick of a VM: what its guest has sent by the interfaces that it has and by those that it loses in this tick.
fn sum(
    continuity: &mut Continuity,
    start: u64,
    has: &[(&Nic, u32, u64)],
    loses: &[(&Nic, u32, u64)],
) -> Option<u64> {
    let vm = InstanceInfo { id: "a".into(), hypervisor_pid: Some(7), ..InstanceInfo::default() };
    let mut sum = None;
    continuity.begin_tick();
    for (nics, is_gone) in [(loses, true), (has, false)] {
        let mut stats = Vec::new();
        for (nic, ifindex, bytes) in nics {
            let reading =
                DeviceReading { nic, ifindex: *ifindex, namespace: None, rx: tx(0), tx: tx(*bytes) };
            let cumulative = Totals { tx: reading.tx, ..Totals::default() };
            let account = continuity.account("a", &reading);
            let (share, published) = (account.share, account.publish(cumulative));
            stats.push((Some(share), NicStats { rx: tx(0), tx: published.tx, ..NicStats::default() }));
            if is_gone {
                continuity.close(DeviceExit::Deleted, &reading, cumulative);
            }
        }
        sum = continuity.network_sum(&vm, Some(start), &stats, &[])[1];
    }
    continuity.end_tick();
    sum
}

#[test]
fn the_next_daemon_knows_what_interfaces_counted_that_were_gone_before() {
    let dir = tempfile::tempdir().unwrap();
    let (host, t0, t1) = (booted(dir.path(), "one\n"), Nic::local("t0"), Nic::local("t1"));
    for nic in [&t0, &t1] {
        fs::create_dir_all(host.net_device(&nic.tap)).unwrap();
    }
    let continuity = || Continuity::new(host.clone(), Purpose::Serve, Some(dir.path()), Trust::default());
    let mut first = continuity();
    assert_eq!(sum(&mut first, 5, &[(&t0, 7, 1000), (&t1, 8, 500)], &[]), Some(1500));
    assert_eq!(sum(&mut first, 5, &[(&t0, 7, 1000)], &[(&t1, 8, 600)]), Some(1600));
    let mut second = continuity();
    assert_eq!(sum(&mut second, 5, &[(&t0, 7, 1010)], &[]), Some(1610));
    assert_eq!(sum(&mut second, 5, &[(&t0, 7, 1010), (&t1, 9, 1)], &[]), Some(1611));
    assert_eq!(sum(&mut continuity(), 5, &[(&t0, 7, 1020), (&t1, 9, 2)], &[]), Some(1622));
    assert_eq!(sum(&mut continuity(), 6, &[(&t0, 7, 1020)], &[]), Some(1020), "another process");
}
