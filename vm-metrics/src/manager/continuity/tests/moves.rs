//! Devices that are deleted, or move between network namespaces.

use super::*;

#[test]
fn a_moved_device_waits_for_its_vm() {
    let mut continuity = Daemon::default();
    let moves_an_hour_ago = |continuity: &mut Daemon, ifindex| {
        read(continuity, "a", &Nic::local("t"), 7, 1000);
        lose(continuity, now() - 3600.0, &Nic::local("t"), 7, 1000, DeviceExit::Moved { ifindex });
    };
    moves_an_hour_ago(&mut continuity, 9);
    assert_eq!(read(&mut continuity, "b", &there("t"), 9, 1200), 200);
    moves_an_hour_ago(&mut continuity, 8);
    assert_eq!(
        read(&mut continuity, "c", &there("u"), 8, 1200),
        1200,
        "by another name it is hardly the same"
    );
}

#[test]
fn a_moved_device_counts_once() {
    let mut continuity = Daemon::default();
    let (here, there) = (there("t"), Nic { netns: Some(THERE + 1), ..there("t") });
    assert_eq!(read(&mut continuity, "a", &here, 7, 1000), 1000);
    lose(&mut continuity, now(), &here, 7, 1000, DeviceExit::Moved { ifindex: 9 });
    assert_eq!(read(&mut continuity, "a", &there, 8, 5000), 5000, "another device");
    assert_eq!(read(&mut continuity, "b", &there, 9, 1300), 300, "its next owner");
    lose(&mut continuity, now(), &there, 9, 1300, DeviceExit::Moved { ifindex: 7 });
    assert_eq!(read(&mut continuity, "a", &here, 7, 1350), 50);
    lose(&mut continuity, now(), &here, 7, 1350, DeviceExit::Deleted);
    assert_eq!(read(&mut continuity, "b", &here, 7, 2000), 2000, "another device with its index");
}

#[test]
fn elsewhere_a_device_comes_back_by_index() {
    let (mut continuity, nic) = (Daemon::default(), there("t"));
    read(&mut continuity, "a", &nic, 7, 1000);
    lose(&mut continuity, now(), &nic, 7, 1000, DeviceExit::Moved { ifindex: 9 });
    assert_eq!(read(&mut continuity, "a", &there("u"), 9, 1100), 1100, "another device with its index");
    lose(&mut continuity, now(), &there("u"), 9, 1100, DeviceExit::Deleted);
    assert_eq!(read(&mut continuity, "a", &nic, 9, 1200), 200);
}

#[test]
fn a_deleted_device_is_not_the_next_one() {
    let mut continuity = Daemon::default();
    let nic = there("t");
    read(&mut continuity, "a", &nic, 7, 1000);
    idle(&mut continuity, 1);
    exit(&mut continuity, &nic, 7, DeviceExit::Deleted);
    assert_eq!(read(&mut continuity, "b", &nic, 7, 1200), 1200);
}

/// The VM loses it in the tick after it was deleted: its final counters still have their account.
#[test]
fn a_lost_device_keeps_its_account_until_merged() {
    let (mut daemon, nic) = (Daemon::default(), there("t"));
    read(&mut daemon, "a", &nic, 7, 1000);
    let device = daemon.find(&nic, 7, NicKind::Tap);
    let exits = daemon.begin_tick(&[(&nic, 7, DeviceExit::Deleted)]);
    let batch = Batch { exits, ..readings(&[device]) };
    let mut tick = daemon.continuity.begin_tick(now(), &VmSet::default(), &vm("a", None, [&nic]), &batch);
    let given = tick.account("a", &reading(&nic, device, 1300)).publish(counted(1300));
    assert_eq!(given.tx.bytes, Some(1300));
    tick.end().save();
    assert!(!daemon.continuity.knows(device.id));
}

/// Its final counters stand for it, when its VM was not listed for a while.
#[test]
fn a_read_device_keeps_its_account_when_gone() {
    let (mut daemon, nic) = (Daemon::default(), there("t"));
    read(&mut daemon, "a", &nic, 7, 1000);
    let device = daemon.find(&nic, 7, NicKind::Tap);
    let exits = daemon.begin_tick(&[(&nic, 7, DeviceExit::Deleted)]);
    let batch = Batch { exits, ..readings(&[device]) };
    let mut tick = daemon.continuity.begin_tick(now(), &vm("a", None, [&nic]), &VmSet::default(), &batch);
    let account = tick.account("a", &reading(&nic, device, 1100));
    assert!(account.published.is_some(), "the same share goes on");
    tick.end().save();
    assert!(!daemon.continuity.knows(device.id));
}

/// The notice is about the device before, which had its index.
#[test]
fn a_present_device_was_not_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (host, nic) = (host_with(dir.path(), "t"), Nic::local("t"));
    let mut continuity = daemon(&host);
    read(&mut continuity, "a", &nic, 7, 1000);
    exit(&mut continuity, &nic, 7, DeviceExit::Deleted);
    assert_eq!(read(&mut continuity, "b", &nic, 7, 1200), 200);
}
