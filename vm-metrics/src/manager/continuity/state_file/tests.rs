//! Tests of the state file: its format, and directories that are refused.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use super::*;

const NAME: &str = "ledger-0.json";

/// A directory, and the store of a daemon that starts there.
fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let file = Some(StateFile { name: NAME.to_owned(), boot_id: "one".to_owned() });
    let store = Store { dir: dir.path().to_owned(), file, health: ComponentHealth::healthy() };
    (dir, store)
}

fn save(store: &mut Store) {
    store.save([].into_iter(), Vec::new(), Moves::default());
}

fn says(store: &Store) -> (Health, &str) {
    (store.health().state, &store.health().reason)
}

/// A daemon of another version may have written it, or may be the next to read it.
#[test]
fn the_saved_state_keeps_its_format() {
    const STATE: &str = r#"{"boot_id":"one","devices":[{"tap":"t","netns":5,"ifindex":7,"device":11,
        "owner":"a","process":[70,500],"since":1.5,"origin":ORIGIN,"counts_since":2.5,"ebpf_since":3.5,
        "earlier":{"counts":{"rx":RX,"tx":RX,"ebpf":EBPF,"rx_dropped_by_device":6,"rx_gap_packets":7,
        "tx_gap_packets":8},"since":4.5,"ebpf_since":5.5}}],
        "ended":[{"id":"a","pid":70,"start_ticks":500,"sum":[1,2,3,null]}],
        "moves":[{"at":6.5,"tap":"t","from":null,"device":12,"ifindex":9,"raw":[RX,RX],"line":ORIGIN}]}"#;
    const MIX: &str = r#"{"bytes":1,"packets":2,"wire_packets":3,"wire_bytes":4,"gso_packets":5,"ipv4":6,
        "ipv6":7,"arp":8,"other_l3":9,"tcp":10,"udp":11,"icmp":12,"other_l4":13,"unicast":14,
        "multicast":15,"broadcast":16}"#;
    const EBPF: &str = r#"{"rx":MIX,"tx":MIX,"offered":{"packets":1,"bytes":2},"dropped_ring_full":null,
        "dropped_filter":{"packets":3,"bytes":4},"dropped_qdisc":{"packets":5,"bytes":6}}"#;
    let text = STATE
        .replace("ORIGIN", r#"{"rx":RX,"tx":RX,"ebpf":EBPF}"#)
        .replace("EBPF", EBPF)
        .replace("MIX", MIX)
        .replace("RX", r#"{"bytes":1,"packets":2,"dropped":3,"errors":null}"#);
    let saved: StateContent = serde_json::from_str(&text).unwrap();
    let same: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_value(&saved).unwrap(), same);
    let (_, account) = saved.devices.into_iter().next().unwrap().restored(0.0, &mut DeviceTable::default());
    assert_eq!(serde_json::to_value(SavedDevice::of(&account)).unwrap(), same["devices"][0]);
}

#[test]
fn the_state_is_private() {
    let (dir, mut store) = store();
    store.load(0.0, &mut DeviceTable::default());
    save(&mut store);
    assert_eq!(says(&store), (Health::Healthy, ""));
    let mode = fs::metadata(dir.path().join(NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_fifo_is_refused_until_it_is_removed() {
    let (dir, mut store) = store();
    let path = dir.path().join(NAME);
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    store.load(0.0, &mut DeviceTable::default());
    let expected = format!("state_dir: {} is a FIFO, and no regular file: remove it; ", path.display());
    assert!(store.health().reason.starts_with(&expected), "{:?}", store.health());
    save(&mut store);
    assert_eq!(says(&store).0, Health::Failed);
    fs::remove_file(&path).unwrap();
    save(&mut store);
    assert_eq!(says(&store).0, Health::Healthy);
}

#[test]
fn a_directory_that_others_may_write_is_refused() {
    let (dir, mut store) = store();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    for step in [Store::look, |store: &mut Store| drop(store.load(0.0, &mut DeviceTable::default())), save] {
        step(&mut store);
        assert_eq!(says(&store).0, Health::Failed);
        assert!(says(&store).1.contains("has mode 0777"), "{:?}", store.health());
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_spoilt_state_is_written_over() {
    let (dir, mut store) = store();
    fs::write(dir.path().join(NAME), "{").unwrap();
    store.load(0.0, &mut DeviceTable::default());
    assert_eq!(says(&store).0, Health::Degraded);
    save(&mut store);
    assert_eq!(says(&store).0, Health::Healthy);
}
