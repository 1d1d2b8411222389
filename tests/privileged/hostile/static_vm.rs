//! Fakes of a configured VM without a pid and with an unknown VMM.

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::tenant::Tenant;
use vm_metrics_testkit::wait::SOON;

use super::lab::{Scene, Victim};
use crate::isolation::isolated;

const ID: &str = "billing";
const TABLES: &str = "[[sources.static_list.vms]]\nid = \"billing\"\ntaps = [\"vmt0\"]\n";

#[test]
fn a_fake_uuid_joins_no_static_vm() {
    isolated("hostile::static_vm::a_fake_uuid_joins_no_static_vm", || {
        attack(|scene| scene.attacker("qemu-system-x86_64", &["-uuid", ID]));
    });
}

#[test]
fn a_foreign_tap_joins_no_static_vm() {
    isolated("hostile::static_vm::a_foreign_tap_joins_no_static_vm", || {
        attack(|scene| {
            let mut fake = scene.attacker_in_netns("qemu-system-x86_64", &["-name", "guest=other"]);
            fake.open_tap("vmt0").unwrap();
            fake
        });
    });
}

#[test]
fn a_complete_fake_joins_no_static_vm() {
    isolated("hostile::static_vm::a_complete_fake_joins_no_static_vm", || {
        attack(|scene| {
            let mut fake = scene.attacker_in_netns("qemu-system-x86_64", &["-uuid", ID]);
            fake.open_tap("vmt0").unwrap();
            fake
        });
    });
}

/// Tries an earlier and a later fake.
fn attack(fake: impl Fn(&Scene) -> Tenant) {
    let scene = Scene::new();
    let older = fake(&scene);
    // This program is not a known hypervisor.
    let mut victim = scene.victim_with(ID, "acme-vmm", &[], "vmt0");
    let daemon = scene.daemon_of_namespaces(TABLES);
    assert_untouched(&daemon, &mut victim, &older);
    let younger = fake(&scene);
    assert_untouched(&daemon, &mut victim, &younger);
    assert_untouched(&daemon, &mut victim, &older);
}

/// Checks that the fake is a VM of its own, and the static VM has only its own TAP.
fn assert_untouched(daemon: &Daemon, victim: &mut Victim, fake: &Tenant) {
    let pid = fake.pid().to_string();
    let told_apart = |metrics: &Metrics| {
        let of_fake = |sample: &&vm_metrics_testkit::metrics_text::Sample| sample.label("pid") == Some(&pid);
        let shown = metrics.samples("vm_info").find(of_fake)?;
        assert_ne!(shown.label("instance_id"), Some(ID), "the static VM has the process of the fake");
        Some(())
    };
    daemon.wait_for(SOON, "the fake as a VM of its own", told_apart).unwrap();
    for _ in 0..5 {
        victim.work(5);
        victim.assert_exact(daemon);
        let metrics = daemon.metrics().unwrap();
        let devices = metrics.samples("vm_network_tx_bytes_total");
        let own: Vec<_> = devices.filter(|sample| sample.label("instance_id") == Some(ID)).collect();
        assert_eq!(own.len(), 1, "{own:?}");
        let taken = metrics.samples("vm_info").any(|sample| {
            sample.label("instance_id") == Some(ID) && sample.label("pid") == Some(pid.as_str())
        });
        assert!(!taken, "the static VM has the process of the fake");
    }
}
