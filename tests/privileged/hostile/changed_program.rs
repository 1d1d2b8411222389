//! VMMs that change identity by command line, fork or exec.

use std::collections::BTreeSet;

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::tenant::Action;
use vm_metrics_testkit::wait::SOON;

use super::lab::{Scene, Victim, of_device};
use super::user::ATTACKER;
use crate::isolation::isolated;

#[test]
fn a_rewritten_command_line_changes_no_id() {
    isolated("hostile::changed_program::a_rewritten_command_line_changes_no_id", || {
        for argv in ["x", "x -uuid two", ""] {
            let (scene, mut vm) = evader();
            let daemon = scene.daemon("");
            vm.work(5);
            vm.assert_exact(&daemon);
            let argv = argv.split(' ').map(str::to_owned).collect();
            vm.vmm.perform(&Action::RewriteArgv { argv }).unwrap();
            for _ in 0..10 {
                vm.work(5);
                vm.assert_exact(&daemon);
            }
        }
    });
}

#[test]
fn a_forked_child_stays_the_same_vm() {
    isolated("hostile::changed_program::a_forked_child_stays_the_same_vm", || {
        for parent_stays in [true, false] {
            let (scene, mut vm) = evader();
            let daemon = scene.daemon("");
            vm.work(5);
            vm.assert_exact(&daemon);
            vm.vmm.perform(&Action::Fork { parent_stays }).unwrap();
            for _ in 0..5 {
                vm.work(5);
                vm.assert_exact(&daemon);
            }
            let argv = ["x", "-uuid", "two"].map(str::to_owned).to_vec();
            vm.vmm.perform(&Action::RewriteArgv { argv }).unwrap();
            for _ in 0..10 {
                vm.work(5);
                vm.assert_exact(&daemon);
            }
        }
    });
}

#[test]
fn another_hypervisor_is_another_vm_without_loss() {
    isolated("hostile::changed_program::another_hypervisor_is_another_vm_without_loss", || {
        let argv = ["--id", "two"];
        let owners = exec_with_the_tap("firecracker", &argv);
        assert!(owners.contains("one") && owners.contains("two") && owners.len() == 2, "{owners:?}");
    });
}

#[test]
fn another_program_loses_no_bytes() {
    isolated("hostile::changed_program::another_program_loses_no_bytes", || {
        let owners = exec_with_the_tap("acme", &[]);
        assert!(owners.contains("one") && owners.len() <= 2, "{owners:?}");
    });
}

/// Executes another program with the VM's TAP, and returns the VMs with its bytes at the end.
fn exec_with_the_tap(program: &str, argv: &[&str]) -> BTreeSet<String> {
    let (scene, mut vm) = evader();
    let daemon = scene.daemon("");
    vm.work(5);
    vm.assert_exact(&daemon);
    // These frames fall between the last tick before and the first after.
    vm.work(5);
    let argv = argv.iter().map(ToString::to_string).collect();
    let program = scene.other_program(program);
    vm.vmm.perform(&Action::Exec { program, argv, keep: vec![vm.fd] }).unwrap();
    for _ in 0..10 {
        vm.work(5);
        wait_for_sum(&daemon, &vm);
    }
    let metrics = daemon.metrics().unwrap();
    of_device(&vm.tap, &metrics).filter_map(|sample| sample.label("instance_id").map(str::to_owned)).collect()
}

/// Waits until the VMs that have or had the device have its bytes together, each byte once.
fn wait_for_sum(daemon: &Daemon, vm: &Victim) {
    let mut sums = (0.0, 0.0);
    let all = (vm.sent as f64, vm.received as f64);
    let complete = daemon.wait_for(SOON, "all bytes", |metrics| {
        sums = ["vm_network_tx_bytes_total", "vm_network_rx_bytes_total"]
            .map(|name| sum(metrics, name, &vm.tap))
            .into();
        assert!(sums.0 <= all.0 && sums.1 <= all.1, "{sums:?} of {all:?}");
        (sums == all).then_some(())
    });
    complete.unwrap_or_else(|error| panic!("{error:#}: {sums:?} of {all:?}"));
}

fn sum(metrics: &Metrics, name: &str, device: &str) -> f64 {
    let of_device = metrics.samples(name).filter(|sample| sample.label("device") == Some(device));
    of_device.map(|sample| sample.value).sum()
}

/// Starts `one`, a VM of an ordinary user.
fn evader() -> (Scene, Victim) {
    let scene = Scene::new();
    // The command line must be longer than any that replaces it.
    let argv = ["-name", "guest=one", "-uuid", "one", "-nodefaults", "-no-user-config"];
    let vm = scene.vm_of(ATTACKER, "one", "qemu-system-x86_64", &argv, "vmt0");
    (scene, vm)
}
