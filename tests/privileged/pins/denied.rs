//! The daemon treats denied access as unknown, not as absent.

use std::fs::{metadata, read_dir, set_permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::service;
use vm_metrics_testkit::skip::skip;
use vm_metrics_testkit::wait::{SOON, wait_until};

use super::host::{BINARY, Host, cases, wait_for_frames};
use super::own_pins;
use crate::lab::{attached_programs, tcx};
use crate::user::User;

fn pinned(daemon: &Daemon) -> Option<f64> {
    daemon.metrics().unwrap().value("vm_exporter_reader_pinned", &[("reader", "tap_ebpf")])
}

fn wait_for_log(daemon: &Daemon, wording: &str) {
    let output_text = || Ok(daemon.log().contains(wording).then_some(()));
    wait_until(SOON, wording, output_text).unwrap_or_else(|error| panic!("{error}: {}", daemon.log()));
}

/// Returns the output of `doctor` for the service user.
fn doctor(host: &Host) -> String {
    let mut command = service::command(Path::new(BINARY), &service::capabilities());
    command.args(["doctor", "--config"]).arg(&host.config);
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

/// Only root may read root's pins of the links.
#[test]
fn an_unreadable_link_stays() {
    if let Err(reason) = tcx() {
        return skip(&reason);
    }
    let host = Host::new(User::Service, "tcx");
    let mut daemon = host.start();
    host.send(1000);
    wait_for_frames(&daemon, 1000);
    daemon.kill().unwrap();
    let links = own_pins().join("links");
    let links = || read_dir(&links).unwrap().map(|entry| entry.unwrap().path());
    for link in links() {
        chown(&link, Some(0), Some(0)).unwrap();
        set_permissions(&link, PermissionsExt::from_mode(0o600)).unwrap();
    }
    let daemon = host.start_as(Path::new(BINARY), "netlink");
    wait_for_log(
        &daemon,
        "the kernel does not say what an earlier daemon has left on it, so that stays as it is",
    );
    // This is the only TAP.
    let failed = [("component", "tap_ebpf"), ("state", "failed")];
    assert_eq!(daemon.metrics().unwrap().value("vm_exporter_component_health", &failed), Some(1.0));
    host.send(300);
    assert_eq!((links().count(), attached_programs("vmt0")), (2, 2));
    links().for_each(|link| service::give_to_service(&link).unwrap());
    host.send(200);
    wait_for_frames(&daemon, 1500);
    let gap = daemon.metrics().unwrap().value("vm_network_tx_gap_packets_total", &[]);
    assert_eq!((gap, attached_programs("vmt0")), (Some(0.0), 2));
}

/// Existing counts stay.
#[test]
fn unreadable_drop_pins_stay() {
    let host = Host::new(User::Service, "auto");
    host.start().kill().unwrap();
    let link = own_pins().join("drops-link");
    if !link.exists() {
        return skip("the kernel gives reasons for drops from Linux 5.18 on");
    }
    chown(&link, Some(0), Some(0)).unwrap();
    let before = metadata(&link).unwrap().ino();
    let mut daemon = host.start();
    wait_for_log(&daemon, "dropped bytes are not counted: `BPF_OBJ_GET` failed: Permission denied");
    daemon.kill().unwrap();
    service::give_to_service(&link).unwrap();
    let daemon = host.start();
    assert!(!daemon.log().contains("dropped bytes are not counted"), "{}", daemon.log());
    assert_eq!(metadata(&link).unwrap().ino(), before);
}

#[test]
fn detach_fails_without_read_permission() {
    let host = Host::new(User::Service, "clsact");
    drop(host.start());
    let detach = |capabilities: &[String], all: &[&str]| {
        let mut command = service::command(Path::new(BINARY), capabilities);
        let output = command.args(["detach", "--config"]).arg(&host.config).args(all).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let all = service::capabilities();
    let without: Vec<_> = all.iter().filter(|name| *name != "+net_admin").cloned().collect();
    let (worked, output_text) = detach(&without, &[]);
    assert!(!worked && output_text.contains("cannot take the filters off"), "{output_text}");
    assert_eq!(attached_programs("vmt0"), 2);
    // The test itself runs in another namespace.
    let (worked, output_text) = detach(&all, &["--all"]);
    assert!(
        !worked && output_text.contains("cannot enter net:[") && output_text.contains("CAP_SYS_ADMIN"),
        "{output_text}"
    );
    assert_eq!(attached_programs("vmt0"), 0);
    let (worked, output_text) = detach(&all, &[]);
    assert!(worked, "{output_text}");
}

/// The programs saw all frames for such a guest long ago.
#[test]
fn programs_on_a_slow_guest_stay() {
    for (user, way) in cases() {
        let host = Host::new(user, way);
        let daemon = host.start();
        let frame = Frame::to_guest().udp4(300);
        let peer = PacketSocket::bind(host.tap.name()).unwrap();
        (0..5).for_each(|_| peer.send(&frame).unwrap());
        let mut buffer = [0; 2048];
        for taken in 1..=5 {
            assert!(host.tap.read_frame(&mut buffer).unwrap().is_some());
            let is_shown = |metrics: &Metrics| {
                let packets = metrics.value("vm_network_rx_packets_total", &[])?;
                (packets == f64::from(taken)).then_some(())
            };
            daemon.wait_for(SOON, "the frame that is taken", is_shown).unwrap();
        }
        assert!(!daemon.log().contains("put back"), "{user:?} {way}: {}", daemon.log());
    }
}

#[test]
fn pins_of_root_stay_when_the_user_changes() {
    let mut host = Host::new(User::Service, "auto");
    host.user = User::Root;
    host.start().kill().unwrap();
    let pins = own_pins();
    host.user = User::Service;
    let daemon = host.start();
    let wording = format!("a daemon of another user has left {}", pins.display());
    assert!(
        daemon.log().contains(&wording) && daemon.log().contains("`vm-metrics detach`"),
        "{}",
        daemon.log()
    );
    assert_eq!(pinned(&daemon), Some(0.0));
    assert!(doctor(&host).contains(&wording), "{}", doctor(&host));
    host.send(3);
    wait_for_frames(&daemon, 3);
    drop(daemon);
    assert!(pins.join("COUNTERS").exists());
    host.detach(&[]);
    assert_eq!(pinned(&host.start()), Some(1.0));
}

#[test]
fn doctor_explains_how_to_enable_pins() {
    let host = Host::new(User::Service, "auto");
    let makes = format!("`install -d -m 0700 -o {} /sys/fs/bpf/vm-metrics`", service::UID);
    assert!(doctor(&host).contains(&makes), "{}", doctor(&host));
    // The daemon gives the same message when the unit makes no directory.
    let mut command = service::command(Path::new(BINARY), &service::capabilities());
    command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&host.config);
    let daemon = Daemon::start_command(command).unwrap();
    daemon.wait_until_ready().unwrap();
    assert!(daemon.log().contains(&makes), "{}", daemon.log());
    assert_eq!(pinned(&daemon), Some(0.0));
    drop(daemon);
    let daemon = host.start();
    assert_eq!(pinned(&daemon), Some(1.0));
    assert!(!doctor(&host).contains("no pins"), "{}", doctor(&host));
    // Root gets the owner of the pins.
    let doctor =
        Command::new(BINARY).args(["doctor", "--no-daemon", "--config"]).arg(&host.config).output().unwrap();
    let wording = format!("belongs to user {}: a daemon of that user pins there", service::UID);
    let output_text = String::from_utf8(doctor.stdout).unwrap();
    assert!(output_text.contains(&wording), "{output_text}");
}
