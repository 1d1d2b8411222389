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
            let before = daemon.metrics().unwrap();
            vm.vmm.perform(&Action::Fork { parent_stays }).unwrap();
            vm.work(5);
            wait_for_child(&daemon, &vm, &before, parent_stays);
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

/// Ticks in which the daemon surely looks at each process here, also on a host where an answer takes several of them.
const LOOKS: f64 = 50.0;

/// Until the daemon has looked at the child. One that goes on alone is the process of the VM.
fn wait_for_child(daemon: &Daemon, vm: &Victim, before: &Metrics, parent_stays: bool) {
    let ticks = |metrics: &Metrics| metrics.value("vm_exporter_ticks_total", &[]);
    let process = |metrics: &Metrics| {
        let info = metrics.samples("vm_info").find(|info| info.label("instance_id") == Some("one"))?;
        // None while nobody is known to go on with the TAP.
        info.label("pid").filter(|pid| !pid.is_empty()).map(str::to_owned)
    };
    let all = (vm.sent as f64, vm.received as f64);
    let is_known = |metrics: &Metrics| {
        let sums = sums(metrics, &vm.tap);
        assert!(sums.0 <= all.0 && sums.1 <= all.1, "{sums:?} of {all:?}");
        let is_there = parent_stays || process(metrics).is_some_and(|pid| Some(pid) != process(before));
        (is_there && ticks(metrics) >= Some(ticks(before)? + LOOKS)).then_some(())
    };
    daemon.wait_for(SOON, "a look at the child", is_known).unwrap();
}

#[test]
fn another_hypervisor_is_another_vm_without_loss() {
    isolated("hostile::changed_program::another_hypervisor_is_another_vm_without_loss", || {
        let argv = ["--id", "two"];
        exec_with_the_tap("firecracker", &argv, |owners| {
            owners.contains("one") && owners.contains("two") && owners.len() == 2
        });
    });
}

#[test]
fn another_program_loses_no_bytes() {
    isolated("hostile::changed_program::another_program_loses_no_bytes", || {
        exec_with_the_tap("acme", &[], |owners| owners.contains("one") && owners.len() <= 2);
    });
}

/// The VM executes another program, which has its TAP. In the end these VMs have its bytes.
fn exec_with_the_tap(program: &str, argv: &[&str], are_owners: impl Fn(&BTreeSet<String>) -> bool) {
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
    let mut owners = BTreeSet::new();
    let is_so = |metrics: &Metrics| {
        let ids = of_device(&vm.tap, metrics).filter_map(|sample| sample.label("instance_id"));
        owners = ids.map(str::to_owned).collect();
        assert!(owners.len() <= 2, "{owners:?}");
        are_owners(&owners).then_some(())
    };
    let ended = daemon.wait_for(SOON, "the owners", is_so);
    ended.unwrap_or_else(|error| panic!("{error:#}: {owners:?}"));
    wait_for_sum(&daemon, &vm);
}

/// Waits until the VMs that have or had the device have its bytes together, each byte once.
fn wait_for_sum(daemon: &Daemon, vm: &Victim) {
    let mut sums = (0.0, 0.0);
    let all = (vm.sent as f64, vm.received as f64);
    let complete = daemon.wait_for(SOON, "all bytes", |metrics| {
        sums = self::sums(metrics, &vm.tap);
        assert!(sums.0 <= all.0 && sums.1 <= all.1, "{sums:?} of {all:?}");
        (sums == all).then_some(())
    });
    complete.unwrap_or_else(|error| panic!("{error:#}: {sums:?} of {all:?}"));
}

/// Bytes that all VMs with the device have sent and received.
fn sums(metrics: &Metrics, device: &str) -> (f64, f64) {
    ["vm_network_tx_bytes_total", "vm_network_rx_bytes_total"].map(|name| sum(metrics, name, device)).into()
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
