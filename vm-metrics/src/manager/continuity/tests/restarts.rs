//! Daemons one after the other: the state file, and devices that move around a restart.

use super::*;
use crate::model::{Health, NicStats};

/// A host with one device, and a boot id that state files are tied to.
fn booted(dir: &Path, boot_id: &str) -> Host {
    let host = host_with(dir, "t");
    for (file, content) in [("sys/kernel/random/boot_id", boot_id), ("thread-self/ns/net", "")] {
        let path = host.proc().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    host
}

/// Daemons that keep their state in the directory.
fn daemons(dir: &Path) -> (impl Fn() -> Daemon, Host) {
    let host = booted(dir, "one\n");
    let (of_host, state) = (host.clone(), dir.to_owned());
    let daemon = move || Daemon::new(&of_host, Purpose::Serve, Some(&state));
    (daemon, host)
}

#[test]
fn the_next_daemon_knows_former_owners() {
    let dir = tempfile::tempdir().unwrap();
    let ((daemon, host), nic) = (daemons(dir.path()), Nic::local("t"));
    let mut first = daemon();
    assert_eq!(read(&mut first, "a", &nic, 7, 1000), 1000);
    assert_eq!(read(&mut first, "b", &nic, 7, 1200), 200);
    assert_eq!(read(&mut daemon(), "b", &nic, 7, 1300), 300);
    assert_eq!(read(&mut daemon(), "c", &nic, 7, 1500), 0, "the owner changed unseen: no VM gets the rest");

    let mut one_shot = Daemon::new(&host, Purpose::Look, Some(dir.path()));
    assert_eq!(read(&mut one_shot, "b", &nic, 7, 1500), 1500, "a one-shot shows the device's own count");
    // Kept until the new one is there: so it gets another number.
    fs::rename(host.net_device("t"), host.net_device("old")).unwrap();
    fs::create_dir(host.net_device("t")).unwrap();
    assert_eq!(read(&mut daemon(), "c", &nic, 7, 1600), 1600, "another device");
}

#[test]
fn a_process_with_another_id_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let ((daemon, _), nic) = (daemons(dir.path()), Nic::local("t"));
    let run = |id: &str, process, bytes| read_after(&mut daemon(), &[], (id, Some(process)), &nic, 7, bytes);
    assert_eq!(run("z", (7, 90), 1000), 1000);
    assert_eq!(run("a", (7, 100), 1200), 0, "the pid was used again: another owner");
    assert_eq!(run("b", (7, 100), 1300), 100);
    assert_eq!(run("b", (7, 100), 1400), 200);
}

#[test]
fn a_state_of_another_boot_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let ((daemon, host), nic) = (daemons(dir.path()), Nic::local("t"));
    let mut first = daemon();
    read(&mut first, "a", &nic, 7, 1000);
    read(&mut first, "b", &nic, 7, 1200);
    let written = fs::read_dir(dir.path()).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        path.to_string_lossy().ends_with(".json").then_some(path)
    });
    let written = written.expect("a file");
    fs::write(&written, "{\"boot_id\": \"one\", \"devices\": [{}]}").unwrap();
    assert_eq!(read(&mut daemon(), "b", &nic, 7, 1300), 1300, "it is broken");
    assert_eq!(read(&mut daemon(), "b", &nic, 7, 1300), 1300, "written anew");
    read(&mut first, "c", &nic, 7, 1400);
    let other = booted(dir.path(), "two\n");
    let mut other = Daemon::new(&other, Purpose::Serve, Some(dir.path()));
    assert_eq!(read(&mut other, "c", &nic, 7, 1500), 1500);
    let nowhere = Some(&*dir.path().join("nowhere"));
    let nowhere = Daemon::new(&host, Purpose::Serve, nowhere);
    assert_eq!(nowhere.continuity.state_health().expect("a health").state, Health::Disabled);
}

/// The kernel tells of the move just before the first tick after a restart.
///
/// Once, such a move was kept with time 0, and forgotten at once: the VM was given all 1200 bytes.
#[test]
fn a_move_before_the_first_tick_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let ((daemon, host), nic) = (daemons(dir.path()), Nic::local("t"));
    read(&mut daemon(), "a", &nic, 7, 1000);
    fs::remove_dir(host.net_device("t")).unwrap();
    let mut second = daemon();
    let moved = [(&nic, 7, DeviceExit::Moved { ifindex: 9 })];
    let given = read_after(&mut second, &moved, ("b", None), &there("t"), 9, 1200);
    assert_eq!(given, 0, "the share of each VM is not known");
    assert_eq!(read(&mut second, "b", &there("t"), 9, 1300), 100);
}

#[test]
fn the_next_daemon_knows_moving_devices() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, _) = daemons(dir.path());
    let mut first = daemon();
    read(&mut first, "a", &Nic::local("t"), 7, 1000);
    lose(&mut first, now(), &Nic::local("t"), 7, 1000, DeviceExit::Moved { ifindex: 9 });
    let mut second = daemon();
    idle(&mut second, 1);
    assert_eq!(read(&mut second, "b", &there("t"), 9, 1200), 200);
    assert_eq!(read(&mut daemon(), "b", &there("t"), 9, 1300), 300, "and that it has arrived");
}

/// A device of this process's own namespace goes to an unwatched namespace, and comes back.
#[test]
fn a_device_that_comes_back_goes_on() {
    for restarts in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let ((daemon, host), nic) = (daemons(dir.path()), Nic::local("t"));
        fs::remove_dir(host.net_device("t")).unwrap();
        let mut continuity = daemon();
        idle(&mut continuity, 1);
        fs::create_dir_all(host.net_device("t")).unwrap();
        assert_eq!(read(&mut continuity, "a", &nic, 7, 1000), 1000);
        fs::rename(host.net_device("t"), dir.path().join("elsewhere")).unwrap();
        lose(&mut continuity, now(), &nic, 7, 1000, DeviceExit::Moved { ifindex: 9 });
        if restarts {
            continuity = daemon();
            idle(&mut continuity, 1);
        }
        fs::create_dir(host.net_device("t")).unwrap();
        assert_eq!(read(&mut continuity, "a", &nic, 9, 1100), 1100, "another device of its name");
        lose(&mut continuity, now(), &nic, 9, 1100, DeviceExit::Deleted);
        fs::remove_dir(host.net_device("t")).unwrap();
        fs::rename(dir.path().join("elsewhere"), host.net_device("t")).unwrap();
        assert_eq!(read(&mut continuity, "a", &nic, 8, 1200), 200, "restarts: {restarts}");
    }
}

/// The first daemon has read the device itself; the second knows it from the state file only.
#[test]
fn a_device_moved_without_vm_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let ((daemon, host), nic) = (daemons(dir.path()), Nic::local("t"));
    let mut first = daemon();
    read(&mut first, "a", &nic, 7, 1000);
    let mut second = daemon();
    fs::remove_dir(host.net_device("t")).unwrap();
    for (continuity, given) in [(&mut first, 200), (&mut second, 0)] {
        idle(continuity, 1);
        exit(continuity, &nic, 7, DeviceExit::Moved { ifindex: 9 });
        assert_eq!(read(continuity, "b", &there("u"), 9, 1200), given, "no VM gets unseen bytes");
        assert_eq!(read(continuity, "b", &there("u"), 9, 1250), given + 50);
    }
}

/// Interfaces with their index and the bytes that the guest has sent.
type Interfaces<'n> = &'n [(&'n Nic, u32, u64)];

/// One tick of a VM: the sum of the bytes that its guest has sent.
fn sum(daemon: &mut Daemon, start: u64, has: Interfaces<'_>, loses: Interfaces<'_>) -> Option<u64> {
    let exits = daemon.begin_tick(&[]);
    let set = |nics: Interfaces<'_>| vm("a", Some((7, start)), nics.iter().map(|(nic, ..)| *nic));
    let has_devices: Vec<_> =
        has.iter().map(|(nic, ifindex, _)| daemon.find(nic, *ifindex, NicKind::Tap)).collect();
    let lost_devices: Vec<_> = loses.iter().map(|(nic, ifindex, _)| daemon.lose(nic, *ifindex)).collect();
    let batch = Batch { exits, ..readings(&[has_devices.clone(), lost_devices.clone()].concat()) };
    let (vms, removals) = (set(has), set(loses));
    let mut tick = daemon.continuity.begin_tick(now(), &vms, &removals, &batch);
    let mut sum = None;
    for (nics, devices, is_lost) in [(loses, lost_devices, true), (has, has_devices, false)] {
        let mut stats = Vec::new();
        for ((nic, _, bytes), device) in nics.iter().zip(devices) {
            let account = tick.account("a", &reading(nic, device, *bytes));
            let (share, published) = (account.share, account.publish(counted(*bytes)));
            stats.push((Some(share), NicStats { rx: tx(0), tx: published.tx, ..NicStats::default() }));
            if is_lost {
                tick.close(DeviceExit::Deleted, device.id, counted(*bytes));
            }
        }
        sum = tick.network_sum(&vms.vms[0], Some(start), &stats, &[])[1];
    }
    tick.end().save();
    sum
}

#[test]
fn the_next_daemon_knows_removed_interfaces() {
    let dir = tempfile::tempdir().unwrap();
    let ((daemon, host), t0, t1) = (daemons(dir.path()), Nic::local("t0"), Nic::local("t1"));
    for nic in [&t0, &t1] {
        fs::create_dir_all(host.net_device(&nic.tap)).unwrap();
    }
    let mut first = daemon();
    assert_eq!(sum(&mut first, 5, &[(&t0, 7, 1000), (&t1, 8, 500)], &[]), Some(1500));
    assert_eq!(sum(&mut first, 5, &[(&t0, 7, 1000)], &[(&t1, 8, 600)]), Some(1600));
    let mut second = daemon();
    assert_eq!(sum(&mut second, 5, &[(&t0, 7, 1010)], &[]), Some(1610));
    assert_eq!(sum(&mut second, 5, &[(&t0, 7, 1010), (&t1, 9, 1)], &[]), Some(1611));
    assert_eq!(sum(&mut daemon(), 5, &[(&t0, 7, 1020), (&t1, 9, 2)], &[]), Some(1622));
    assert_eq!(sum(&mut daemon(), 6, &[(&t0, 7, 1020)], &[]), Some(1020), "another process");
}
