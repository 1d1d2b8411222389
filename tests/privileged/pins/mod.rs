//! Pinned programs count over restarts: no loss, no double count, no leftovers.

mod denied;
mod host;
mod switches;
mod upgrade;

use std::path::{Path, PathBuf};
use std::process::Command;

use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::service;
use vm_metrics_testkit::skip::skip;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::{SOON, wait_until};

use self::host::{BINARY, Host, cases, wait_for_all, wait_for_frames};
use crate::isolation::isolated;
use crate::lab::{attached_programs, tcx};
use crate::user::{USERS, User};

const PINS: &str = "/sys/fs/bpf/vm-metrics";

/// Returns the only directory of pins.
fn own_pins() -> PathBuf {
    let mut dirs = std::fs::read_dir(PINS).unwrap().map(|entry| entry.unwrap().path());
    let own = dirs.next().unwrap();
    assert_eq!(dirs.next(), None);
    own
}

/// The service's directory exists before its pins.
fn has_pins() -> bool {
    std::fs::read_dir(PINS).is_ok_and(|mut dirs| dirs.next().is_some())
}

#[test]
fn traffic_between_two_daemons_is_counted() {
    for (user, way) in cases() {
        let host = Host::new(user, way);
        let mut daemon = host.start();
        host.send(5);
        wait_for_frames(&daemon, 5);
        assert_eq!(daemon.terminate().unwrap().code(), Some(0));
        host.send(7);
        let daemon = host.start();
        host.send(1);
        wait_for_frames(&daemon, 13);
        assert_eq!(attached_programs("vmt0"), 2, "{user:?} {way}");
    }
}

#[test]
fn sigkill_under_traffic_keeps_exact_counts() {
    for (user, way) in cases() {
        let host = Host::new(user, way);
        // From here on the programs see all frames.
        host.start().kill().unwrap();
        let (exchanged, daemon) = host.exchange_while(|| {
            let mut last = 0.0;
            for _ in 0..2 {
                let mut daemon = host.start();
                let packets = daemon.metrics().unwrap().value("vm_network_tx_packets_total", &[]).unwrap();
                assert!(packets >= last, "{user:?} {way}: {packets} after {last}");
                last = packets;
                daemon.kill().unwrap();
            }
            host.start()
        });
        wait_for_all(&daemon, exchanged);
        assert_eq!(attached_programs("vmt0"), 2, "{user:?} {way}");
    }
}

#[test]
fn detach_leaves_nothing() {
    for (user, way) in cases() {
        let host = Host::new(user, way);
        drop(host.start());
        assert_eq!(attached_programs("vmt0"), 2, "{user:?} {way}: they stay");
        let message = host.detach(&[]);
        assert!(message.contains(PINS), "{message}");
        // The kernel detaches a link a moment after its last reference goes.
        wait_until(SOON, "no program on the TAP", || Ok((attached_programs("vmt0") == 0).then_some(())))
            .unwrap();
        assert!(!Path::new(PINS).exists(), "{user:?} {way}");
        assert_eq!(host.detach(&[]), "nothing to detach\n");
    }
}

#[test]
fn without_pins_programs_end_with_the_daemon() {
    for (user, way) in cases() {
        let host = Host::with(user, &format!("attach = \"{way}\"\npin = false\n"));
        let mut daemon = host.start();
        assert_eq!(attached_programs("vmt0"), 2, "{user:?} {way}");
        daemon.terminate().unwrap();
        assert_eq!(attached_programs("vmt0"), 0, "{user:?} {way}");
        assert!(!has_pins(), "{user:?} {way}");
    }
}

#[test]
fn a_second_daemon_exits_with_an_error() {
    cases().for_each(second_daemon);
}

fn second_daemon((user, way): (User, &str)) {
    let host = Host::new(user, way);
    let first = host.start();
    let config = host.config.to_str().unwrap();
    let message = host.try_start(Path::new(BINARY)).unwrap_err().to_string();
    assert!(message.contains("exit status: 1"), "{message}");
    let held = format!("another vm-metrics daemon (process {}) holds /sys/fs/bpf/vm-metrics/v", first.pid());
    assert!(message.contains(&held) && message.contains("or set pin = false"), "{message}");
    let detach = Command::new(BINARY).args(["detach", "--config", config]).output().unwrap();
    assert_eq!(detach.status.code(), Some(1), "a daemon that runs keeps its own");
    let message = String::from_utf8(detach.stderr).unwrap();
    assert!(
        message.contains(&held) && message.contains("stop it first") && !message.contains("pin = false"),
        "{message}"
    );
    host.send(3);
    wait_for_frames(&first, 3);
    // Reading disturbs no daemon.
    let doctor = Command::new(BINARY).args(["doctor", "--config", config]).output().unwrap();
    assert!(doctor.status.success());
    host.send(3);
    wait_for_frames(&first, 6);
}

#[test]
fn pins_of_a_dead_device_are_collected() {
    if let Err(reason) = tcx() {
        return skip(&reason);
    }
    USERS.into_iter().for_each(dead_device);
}

fn dead_device(user: User) {
    let mut host = Host::new(user, "tcx");
    let mut daemon = host.start();
    host.send(5);
    wait_for_frames(&daemon, 5);
    daemon.kill().unwrap();
    let links = own_pins().join("links");
    let names =
        || -> Vec<_> { std::fs::read_dir(&links).unwrap().map(|entry| entry.unwrap().file_name()).collect() };
    let old = names();
    assert_eq!(old.len(), 2);
    let old_tap = std::mem::replace(&mut host.tap, Tap::create_up("vmt1", TapOptions::default()).unwrap());
    drop(old_tap);
    host.tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
    let daemon = host.start();
    assert!(names().iter().all(|name| !old.contains(name)), "{old:?} are collected");
    host.send(2);
    wait_for_frames(&daemon, 2);
}

#[test]
fn pins_of_another_version_are_left_alone() {
    // `detach --all` removes the filters in all visible namespaces, other tests' included.
    isolated("pins::pins_of_another_version_are_left_alone", || USERS.into_iter().for_each(other_version));
}

fn other_version(user: User) {
    let host = Host::new(user, "auto");
    let other = Path::new(PINS).join("v99-1");
    std::fs::create_dir_all(other.join("links")).unwrap();
    let mut daemon = host.start();
    assert!(daemon.log().contains("v99-1 is of another version"), "{}", daemon.log());
    daemon.terminate().unwrap();
    assert!(other.exists());
    host.detach(&[]);
    assert!(other.exists());
    host.detach(&["--all"]);
    assert!(!Path::new(PINS).exists());
}

#[test]
fn a_pinned_map_of_another_shape_is_refused() {
    USERS.into_iter().for_each(other_shape);
}

fn other_shape(user: User) {
    let host = Host::new(user, "auto");
    drop(host.start());
    let counters = own_pins().join("COUNTERS");
    std::fs::remove_file(&counters).unwrap();
    aya::maps::Array::<_, u64>::create(4, 0).unwrap().pin(&counters).unwrap();
    host.user.give(&counters);
    let daemon = host.try_start(Path::new(BINARY)).unwrap();
    let metrics = daemon.metrics().unwrap();
    let failed = [("component", "tap_ebpf"), ("state", "failed")];
    assert_eq!(metrics.value("vm_exporter_component_health", &failed), Some(1.0));
    assert_eq!(metrics.value("vm_network_tx_bytes_total", &[]), Some(0.0), "the baseline goes on");
    assert!(
        daemon.log().contains("COUNTERS have another layout than those of this version"),
        "{}",
        daemon.log()
    );
}

/// The namespaces share a bpffs that the first daemon mounts. Their devices have equal names and indices.
#[test]
fn pins_of_another_namespace_are_ignored() {
    isolated("pins::pins_of_another_namespace_are_ignored", || {
        USERS.into_iter().for_each(other_namespace);
    });
}

fn other_namespace(user: User) {
    let dir = tempfile::tempdir().unwrap();
    let pin_dir = dir.path().join("bpf/vm-metrics");
    std::fs::create_dir(pin_dir.parent().unwrap()).unwrap();
    let options = format!("pin_dir = {pin_dir:?}\nmount_bpffs = true\n");
    let outer = Host::with(user, &options);
    if user == User::Service {
        service::mount_bpffs(pin_dir.parent().unwrap()).unwrap();
        std::fs::create_dir(&pin_dir).unwrap();
        outer.user.give(&pin_dir);
    }
    let mut daemon = outer.start();
    outer.send(5);
    wait_for_frames(&daemon, 5);
    daemon.kill().unwrap();
    {
        let _inner = NetNs::enter().unwrap();
        let at = TapOptions { ifindex: outer.tap.ifindex(), ..TapOptions::default() };
        let twin = Tap::create_up("vmt0", at).unwrap();
        let daemon = outer.start();
        twin.write_frame(&Frame::from_guest().udp4(300)).unwrap();
        wait_for_frames(&daemon, 1);
        drop(daemon);
        assert_eq!(std::fs::read_dir(&pin_dir).unwrap().count(), 2, "a directory for each namespace");
    }
    outer.send(1);
    wait_for_frames(&outer.start(), 6);
    outer.detach(&["--all"]);
    rustix::mount::unmount(pin_dir.parent().unwrap(), rustix::mount::UnmountFlags::empty()).unwrap();
}

#[test]
fn a_bpffs_is_not_mounted_over_anything() {
    USERS.into_iter().for_each(not_mounted);
}

fn not_mounted(user: User) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("precious"), "").unwrap();
    let host =
        Host::with(user, &format!("pin_dir = {:?}\nmount_bpffs = true\n", dir.path().join("vm-metrics")));
    let daemon = host.start();
    assert!(daemon.log().contains("is not empty: a bpffs mounted there would hide"), "{}", daemon.log());
    assert!(dir.path().join("precious").exists());
}

#[test]
fn without_a_bpffs_it_still_counts() {
    USERS.into_iter().for_each(no_bpffs);
}

fn no_bpffs(user: User) {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::with(user, &format!("pin_dir = {:?}\n", dir.path().join("pins")));
    let mut daemon = host.start();
    assert!(daemon.log().contains("no pins: ") && daemon.log().contains("mount_bpffs"), "{}", daemon.log());
    host.send(3);
    wait_for_frames(&daemon, 3);
    daemon.terminate().unwrap();
    assert_eq!(attached_programs("vmt0"), 0);
}
