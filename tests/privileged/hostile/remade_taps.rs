//! A VM recreates its TAP repeatedly: its sum has every byte.

use std::thread;
use std::time::Duration;

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::tenant::{Action, FRAME, Tenant};
use vm_metrics_testkit::wait::{SOON, wait_until};

use super::lab::Scene;
use crate::isolation::isolated;

/// Number of TAPs, and the life of each.
const TIMES: u64 = 100;
const LIFE: Duration = Duration::from_millis(20);

/// Frames that each TAP sends.
const FRAMES: u64 = 5;

#[test]
fn a_tap_recreated_by_root_loses_nothing() {
    isolated("hostile::remade_taps::a_tap_recreated_by_root_loses_nothing", || {
        let scene = Scene::new();
        let victim = scene.victim("11111111-1111-4111-8111-111111111111", "vmt0");
        let daemon = scene.daemon("");
        let mut vmm = victim.vmm;
        vmm.perform(&Action::Close { fd: victim.fd }).unwrap();
        make_anew(&mut vmm, "vmt0");
        assert_sent(&daemon, &victim.id, TIMES * FRAMES * FRAME);
    });
}

/// The TAPs are in a foreign namespace, which may trigger few ticks.
#[test]
fn a_tap_recreated_by_a_user_loses_nothing() {
    isolated("hostile::remade_taps::a_tap_recreated_by_a_user_loses_nothing", || {
        let scene = Scene::new();
        let daemon = scene.daemon_of_namespaces("");
        let mut vmm = scene.attacker_in_netns("cloud-hypervisor", &["--platform", "uuid=strange"]);
        let fd = vmm.open_tap("vmt0").unwrap();
        let is_followed = |metrics: &Metrics| {
            metrics.value("vm_network_tx_bytes_total", &[("instance_id", "strange"), ("device", "vmt0")])
        };
        daemon.wait_for(SOON, "its first TAP", is_followed).unwrap();
        vmm.perform(&Action::Close { fd }).unwrap();
        let before = sent(&daemon, "strange");
        make_anew(&mut vmm, "vmt0");
        // The kernel's own frames on a new device reach no one.
        assert_sent(&daemon, "strange", before.unwrap_or(0) + TIMES * FRAMES * FRAME);
    });
}

/// Recreates the TAP, and keeps the last one.
fn make_anew(vmm: &mut Tenant, name: &str) {
    let mut last = None;
    for _ in 0..TIMES {
        if let Some(fd) = last.take() {
            vmm.perform(&Action::Close { fd }).unwrap();
        }
        let fd = open_again(vmm, name);
        vmm.perform(&Action::Send { fd, frames: FRAMES }).unwrap();
        thread::sleep(LIFE);
        last = Some(fd);
    }
}

/// The daemon holds the descriptor for a moment to find the owner of the TAP.
fn open_again(vmm: &mut Tenant, name: &str) -> i32 {
    let open = Action::OpenTap { name: name.to_owned(), multi_queue: false, up: true };
    let fd = wait_until(SOON, "the TAP to be free", || Ok(vmm.perform(&open).ok()));
    i32::try_from(fd.unwrap()).unwrap()
}

fn assert_sent(daemon: &Daemon, id: &str, bytes: u64) {
    let mut last = None;
    // The daemon may find the last TAP only with the next scan of all descriptors.
    let exact = wait_until(SOON * 3, "each byte in the sum", || {
        last = sent(daemon, id);
        assert!(last.is_none_or(|sent| sent <= bytes), "{last:?} of {bytes}");
        Ok((last == Some(bytes)).then_some(()))
    });
    exact.unwrap_or_else(|error| panic!("{error:#}: {last:?} of {bytes}"));
}

/// Returns the VM's sent bytes, summed over its interfaces.
fn sent(daemon: &Daemon, id: &str) -> Option<u64> {
    let answer = daemon.get("/api/v1/vms", None).unwrap();
    let list: serde_json::Value = serde_json::from_str(answer.text().unwrap()).unwrap();
    let vms = list["vms"].as_array().unwrap();
    let vm = vms.iter().find(|vm| vm["instance_id"] == id)?;
    vm["network_tx_bytes"].as_u64()
}
