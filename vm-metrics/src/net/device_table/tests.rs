//! Tests of the identity of devices.

use std::fs;

use super::*;

const HERE: Option<u64> = None;
const THERE: Option<u64> = Some(4_026_532_001);

fn nic(tap: &str, netns: Option<u64>) -> Nic {
    Nic { tap: tap.into(), netns }
}

/// A device in a namespace with this number.
fn find(table: &mut DeviceTable, tap: &str, netns: Option<u64>, ifindex: u32, number: u64) -> DeviceId {
    table.find(&nic(tap, netns), ifindex, NicKind::Tap, netns.map(|_| number)).id
}

#[test]
fn a_device_keeps_its_id_under_any_name() {
    let mut table = DeviceTable::default();
    let device = find(&mut table, "t", THERE, 7, 1);
    assert_eq!(find(&mut table, "u", THERE, 7, 1), device);
    assert_ne!(find(&mut table, "t", THERE, 8, 1), device, "another index");
    assert_ne!(find(&mut table, "t", HERE, 7, 1), device, "another namespace");
    assert_ne!(find(&mut table, "t", THERE, 7, 2), device, "another namespace with its inode");
}

#[test]
fn an_index_used_again_is_another_device() {
    let mut table = DeviceTable::default();
    let device = find(&mut table, "t", THERE, 7, 1);
    assert_eq!(table.exit(THERE, 7, || true), None, "it has come back");
    assert_eq!(find(&mut table, "t", THERE, 7, 1), device);
    assert_eq!(table.exit(THERE, 7, || false).map(|(gone, _)| gone.id), Some(device));
    assert_eq!(table.exit(THERE, 7, || false), None, "once");
    let next = find(&mut table, "t", THERE, 7, 1);
    assert!(next.generation > device.generation && !table.has(device) && table.has(next));
}

#[test]
fn a_named_device_keeps_its_id_when_indexed() {
    let mut table = DeviceTable::default();
    let named = |table: &mut DeviceTable| find(table, "t", THERE, 0, 1);
    let device = named(&mut table);
    assert_eq!((named(&mut table), device.ifindex), (device, 0));
    let indexed = find(&mut table, "t", THERE, 7, 1);
    assert_eq!((indexed, indexed.ifindex), (device, 7));
    let later = named(&mut table);
    (0..2).for_each(|_| table.begin_tick());
    assert_ne!(find(&mut table, "t", THERE, 9, 1), later, "it may be another one by now");
}

#[test]
fn only_lately_read_devices_count_as_read() {
    let mut table = DeviceTable::default();
    table.begin_tick();
    let read = find(&mut table, "t", THERE, 7, 1);
    find(&mut table, "u", THERE, 8, 1);
    table.note_read([read]);
    table.begin_tick();
    let was_read = [7, 8].map(|ifindex| table.exit(THERE, ifindex, || false).map(|(_, was_read)| was_read));
    assert_eq!(was_read, [Some(true), Some(false)]);
}

/// A host without events.
#[test]
fn births_tell_devices_of_one_name_apart() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::new(dir.path().join("proc"), dir.path().join("sys"));
    let make = |tap: &str| fs::create_dir_all(host.net_device(tap)).unwrap();
    make("t");
    let mut table = DeviceTable::new(&host);
    table.begin_tick();
    let old = table.find(&nic("t", HERE), 7, NicKind::Tap, None);
    assert!(!old.is_young && table.is_still(&nic("t", HERE), &old));
    assert_eq!(table.exit(HERE, 7, || false), None, "the event is about a device before");
    // Kept until the new one is there: so it gets another number.
    fs::rename(host.net_device("t"), host.net_device("old")).unwrap();
    make("t");
    (0..2).for_each(|_| table.begin_tick());
    let young = table.find(&nic("t", HERE), 7, NicKind::Tap, None);
    assert!(young.id != old.id && young.is_young);
    assert_eq!(table.take_gone(), [(old.id, DeviceExit::Deleted)]);
    fs::remove_dir(host.net_device("t")).unwrap();
    let gone = (0..2 * SEARCH_EVERY).find_map(|_| {
        table.begin_tick();
        table.take_gone().pop()
    });
    assert_eq!(gone, Some((young.id, DeviceExit::Deleted)));
}

/// It must not be taken for a device that came and went unread: all its bytes would count again.
#[test]
fn the_event_about_a_replaced_device_finds_it() {
    let mut table = DeviceTable::default();
    table.begin_tick();
    let former = find(&mut table, "t", THERE, 7, 1);
    table.note_read([former]);
    let next = find(&mut table, "t", THERE, 7, 2);
    assert_eq!(table.take_gone(), [(former, DeviceExit::Deleted)]);
    assert_eq!(table.take_gone(), [], "once");
    assert_eq!(
        table.exit(THERE, 7, || true).map(|(gone, was_read)| (gone.id, was_read)),
        Some((former, true))
    );
    assert!(table.exit(THERE, 7, || true).is_none() && table.has(next));
}

/// The search may come before the event.
#[test]
fn a_missing_device_waits_for_its_event() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::new(dir.path().join("proc"), dir.path().join("sys"));
    fs::create_dir_all(host.net_device("t")).unwrap();
    let mut table = DeviceTable::new(&host);
    (1..SEARCH_EVERY).for_each(|_| table.begin_tick());
    let device = table.find(&nic("t", HERE), 7, NicKind::Tap, None).id;
    table.note_read([device]);
    fs::remove_dir(host.net_device("t")).unwrap();
    table.begin_tick();
    assert_eq!(table.take_gone(), []);
    assert_eq!(
        table.exit(HERE, 7, || false).map(|(gone, was_read)| (gone.id, was_read)),
        Some((device, true))
    );
}

#[test]
fn a_restored_device_is_known_again() {
    let mut table = DeviceTable::default();
    let [with_number, without, named] = [("t", 7, Some(1)), ("u", 8, None), ("v", 0, None)]
        .map(|(tap, ifindex, birth)| table.restore(&nic(tap, THERE), ifindex, birth).id);
    table.begin_tick();
    assert_eq!(find(&mut table, "other", THERE, 7, 1), with_number, "renamed");
    assert_eq!(find(&mut table, "u", THERE, 8, 1), without);
    assert_eq!(find(&mut table, "v", THERE, 9, 1), named);
}

#[test]
fn uncounted_devices_are_forgotten() {
    let mut table = DeviceTable::default();
    let [kept, _] = [7, 8].map(|ifindex| find(&mut table, "t", THERE, ifindex, 1));
    for _ in 0..SEARCH_EVERY {
        table.begin_tick();
        table.tidy(|device| device == kept);
    }
    assert_eq!(table.known.len(), 1);
}
