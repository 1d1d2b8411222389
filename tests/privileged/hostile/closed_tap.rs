//! A VM with a closed TAP gets none of the next VM's bytes.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::tenant::{Action, FRAME, Tenant};
use vm_metrics_testkit::wait::SOON;

use super::lab::Scene;
use super::user::NEIGHBOUR;
use crate::isolation::isolated;

const DESCRIPTORS: usize = 15_000;
const FRAMES: u64 = 200;

/// The daemon rescans a process of this age only for a reason.
const OLD: Duration = Duration::from_secs(12);

/// Returns the sent bytes of a VM's device.
fn sent(metrics: &Metrics, vm: &str) -> Option<f64> {
    let info = metrics.samples("vm_info").find(|sample| sample.label("instance_name") == Some(vm))?;
    metrics.value(
        "vm_network_tx_bytes_total",
        &[("instance_id", info.label("instance_id")?), ("device", "vmt0")],
    )
}

fn open(tenant: &mut Tenant) -> i32 {
    let act = Action::OpenTap { name: "vmt0".to_owned(), multi_queue: false, up: false };
    i32::try_from(tenant.perform(&act).unwrap()).unwrap()
}

#[test]
fn a_closed_tap_takes_no_bytes_along() {
    isolated("hostile::closed_tap::a_closed_tap_takes_no_bytes_along", || {
        let scene = Scene::new();
        // The device has no owner and outlives its holder.
        Tap::create_up("vmt0", TapOptions { persist: true, ..TapOptions::default() }).unwrap().leave();
        let daemon = scene.daemon("");
        let mut thief = scene.attacker("qemu-system-x86_64", &["-name", "guest=thief"]);
        let fd = open(&mut thief);
        daemon.wait_for(SOON, "the TAP of the thief", |metrics| sent(metrics, "thief")).unwrap();
        thread::sleep(OLD);
        thief.perform(&Action::Close { fd }).unwrap();
        let path = PathBuf::from("/dev/null");
        thief.perform(&Action::OpenMany { path, count: DESCRIPTORS }).unwrap();
        let mut victim =
            scene.tenant_of(NEIGHBOUR, "qemu-system-x86_64", &["-name", "guest=victim"], Vec::new());
        let fd = open(&mut victim);
        let ticks = |metrics: &Metrics| metrics.value("vm_exporter_ticks_total", &[]);
        let before = daemon.wait_for(SOON, "a tick", ticks).unwrap();
        let is_known = |metrics: &Metrics| {
            let mut vms = metrics.samples("vm_info");
            vms.any(|vm| vm.label("instance_name") == Some("victim")) && ticks(metrics) >= Some(before + 2.0)
        };
        daemon.wait_for(SOON, "the victim", |metrics| is_known(metrics).then_some(())).unwrap();
        victim.perform(&Action::Send { fd, frames: FRAMES }).unwrap();
        let all = |metrics: &Metrics| {
            assert!(sent(metrics, "thief").unwrap_or_default() <= 0.0, "it has bytes of the victim");
            (sent(metrics, "victim")? >= (FRAMES * FRAME) as f64).then_some(())
        };
        daemon.wait_for(SOON, "the bytes of the victim", all).unwrap();
    });
}
