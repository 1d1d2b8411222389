//! Files that imitate the device node of a macvtap.

use std::os::fd::AsFd;
use std::path::PathBuf;

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::frames::{Frame, PEER};
use vm_metrics_testkit::macvtap::Macvtap;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::skip::skip;
use vm_metrics_testkit::tenant::{Action, Tenant, TenantSpec};
use vm_metrics_testkit::wait::SOON;

use super::VICTIM;
use super::lab::{Scene, of_device};
use super::user::ATTACKER;
use crate::isolation::isolated;

const DEVICE: &str = "vmv0";

#[test]
fn a_file_of_its_name_is_no_macvtap() {
    isolated("hostile::macvtap_file::a_file_of_its_name_is_no_macvtap", || {
        attack(|thief, directory, node| {
            thief.perform(&Action::MountTmpfs { path: directory.clone() }).unwrap();
            thief.perform(&Action::OpenFile { path: directory.join(node) }).unwrap();
        });
    });
}

#[test]
fn an_unreadable_file_is_no_macvtap() {
    isolated("hostile::macvtap_file::an_unreadable_file_is_no_macvtap", || {
        attack(|thief, directory, node| {
            let mount = Action::MountFuse { path: directory.clone(), file: node.to_owned(), hangs: false };
            thief.perform(&mount).unwrap();
            thief.perform(&Action::OpenFile { path: directory.join(node) }).unwrap();
        });
    });
}

/// The thief opens the real node without a right to it.
#[test]
fn a_path_descriptor_is_no_macvtap() {
    isolated("hostile::macvtap_file::a_path_descriptor_is_no_macvtap", || {
        attack(|thief, directory, node| {
            thief.perform(&Action::OpenPath { path: directory.with_file_name(node) }).unwrap();
        });
    });
}

/// Passes the thief its own directory and the name of the victim's node, which also lies beside that directory.
fn attack(pretend: impl FnOnce(&mut Tenant, PathBuf, &str)) {
    let scene = Scene::new();
    let Some(macvtap) = Macvtap::create_up(DEVICE).unwrap() else {
        return skip("this kernel has no macvtap");
    };
    let node = format!("tap{}", macvtap.link().ifindex().unwrap());
    macvtap.make_node(&scene.path(&node)).unwrap();
    // The thief is older than the victim: among equals the older one would win.
    let mut thief = scene.attacker("qemu-system-x86_64", &["-name", "guest=thief"]);
    thief.perform(&Action::Unshare { net: false, mount: true, pid: false }).unwrap();
    pretend(&mut thief, scene.directory_of(ATTACKER, "own"), &node);
    let inherited = macvtap.as_fd().try_clone_to_owned().unwrap();
    let argv = ["-name", "guest=victim", "-uuid", VICTIM].iter().map(Into::into).collect();
    let program = scene.program("qemu-system-x86_64");
    let descriptors = vec![(inherited, 100)];
    let victim = TenantSpec { program, argv, descriptors, ..TenantSpec::default() };
    let _victim = Tenant::start(victim).unwrap();
    let daemon = scene.daemon("");
    let frame = Frame::from_guest().to(PEER).udp4(300);
    let before = wait_for_sent(&daemon, |_| true);
    for frames in 1..=20 {
        macvtap.write_frame(&frame).unwrap();
        wait_for_sent(&daemon, |sent| sent == before + (frames * frame.len()) as f64);
    }
}

/// Waits for the victim's sent bytes. No other VM has its device.
fn wait_for_sent(daemon: &Daemon, is_it: impl Fn(f64) -> bool) -> f64 {
    let sent = |metrics: &Metrics| {
        for sample in of_device(DEVICE, metrics) {
            assert_eq!(sample.label("instance_id"), Some(VICTIM), "{sample:?}");
        }
        let labels = [("instance_id", VICTIM), ("device", DEVICE)];
        metrics.value("vm_network_tx_bytes_total", &labels).filter(|sent| is_it(*sent))
    };
    daemon.wait_for(SOON, "the victim's sent bytes", sent).unwrap()
}
