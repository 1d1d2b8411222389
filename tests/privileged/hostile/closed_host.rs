//! A host with a list of users that may run VMs.

use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::wait::SOON;

use super::VICTIM;
use super::lab::Scene;
use super::user::NEIGHBOUR;
use crate::isolation::isolated;

#[test]
fn a_closed_host_shows_no_strangers() {
    isolated("hostile::closed_host::a_closed_host_shows_no_strangers", || {
        let scene = Scene::new();
        let _fake = scene.attacker("qemu-system-x86_64", &["-uuid", "stranger"]);
        let argv = ["-uuid", "neighbour"];
        let mut neighbour = scene.vm_of(NEIGHBOUR, "neighbour", "qemu-system-x86_64", &argv, "vmt1");
        let mut victim = scene.victim(VICTIM, "vmt0");
        let daemon = scene.daemon(&format!("[trust]\nuids = [{NEIGHBOUR}]\n"));
        let up = |metrics: &Metrics| metrics.value("vm_running", &[("instance_id", "neighbour")]);
        daemon.wait_for(SOON, "the VM of a trusted user", up).unwrap();
        let log = daemon.log();
        assert!(log.contains("processes of hypervisors that are no VMs here: 1;"), "{log}");
        for _ in 0..10 {
            victim.work(3);
            neighbour.work(3);
            victim.assert_exact(&daemon);
            neighbour.assert_exact(&daemon);
            assert_eq!(daemon.metrics().unwrap().samples("vm_info").count(), 2);
        }
    });
}
