//! A process with blocked procfs files delays no other process.

use std::fs;

use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::tenant::{Action, Tenant};
use vm_metrics_testkit::wait::SOON;

use super::VICTIM;
use super::lab::Scene;
use super::pace::Pace;
use super::user::ATTACKER;
use crate::isolation::isolated;

/// The configuration names the attacker's process, so only the readers access it.
#[test]
fn a_blocked_process_delays_no_reader() {
    isolated("hostile::blocked_process::a_blocked_process_delays_no_reader", || {
        attack(BlockTime::BeforeTheStart, |victim, held| {
            let vm = |id: &str, pid: u32, taps: &str| {
                format!("[[sources.static_list.vms]]\nid = \"{id}\"\npid = {pid}\ntaps = [{taps}]\n")
            };
            let vms = vm(VICTIM, victim, "\"vmt0\"") + &vm("held", held, "");
            format!("[sources.proc_scan]\nenabled = false\n{vms}")
        });
    });
}

/// The scan reads every process of the host.
#[test]
fn a_blocked_process_delays_no_scan() {
    isolated("hostile::blocked_process::a_blocked_process_delays_no_scan", || {
        attack(BlockTime::Later, |_, _| String::new());
    });
}

/// The moment at which the process blocks.
#[derive(PartialEq, Eq)]
enum BlockTime {
    BeforeTheStart,
    Later,
}

/// `tables` makes the configuration from the pids of the victim and of the blocked process.
fn attack(when: BlockTime, tables: impl Fn(u32, u32) -> String) {
    let scene = Scene::new();
    let mut victim = scene.victim(VICTIM, "vmt0");
    let mut attacker = scene.attacker("qemu-system-x86_64", &["-name", "guest=attacker"]);
    let held = u32::try_from(holdable(&scene, &mut attacker)).unwrap();
    if when == BlockTime::BeforeTheStart {
        attacker.perform(&Action::Block).unwrap();
    }
    let daemon = scene.daemon(&tables(victim.vmm.pid(), held));
    let pace = Pace::of(&daemon);
    victim.work(2);
    victim.assert_exact(&daemon);
    // Kernels differ in which of its files block. The files that the scan reads always do.
    if when == BlockTime::Later {
        attacker.perform(&Action::Block).unwrap();
        daemon.wait_for(SOON, "readings of the attacker to be missed", missed).unwrap();
    }
    pace.assert_kept(&daemon, 20, || victim.work(2));
    victim.assert_exact(&daemon);
}

fn holdable(scene: &Scene, attacker: &mut Tenant) -> u64 {
    attacker.perform(&Action::Unshare { net: false, mount: true, pid: false }).unwrap();
    let path = scene.directory_of(ATTACKER, "fuse");
    let file = "memory".to_owned();
    attacker.perform(&Action::MountFuse { path: path.clone(), file: file.clone(), hangs: true }).unwrap();
    assert!(fs::exists(&path).unwrap());
    attacker.perform(&Action::StartBlockTarget { file: path.join(file) }).unwrap()
}

/// Waits until a component reports a process that did not respond.
fn missed(metrics: &Metrics) -> Option<()> {
    let mut over = metrics.samples("vm_exporter_over_budget");
    over.any(|sample| sample.label("resource") == Some("readings") && sample.value > 0.0).then_some(())
}
