//! Short-lived fakes of a VM do not hide its final counters.

use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::tenant::Action;
use vm_metrics_testkit::wait::SOON;

use super::lab::Scene;
use super::user::{ATTACKER, idle_argv};
use crate::isolation::isolated;

const VICTIM: &str = "11111111-1111-4111-8111-111111111111";

/// Milliseconds between two fakes.
const PAUSE: u64 = 30;

#[test]
fn churning_fakes_hide_no_final_counters() {
    isolated("hostile::churning_fakes::churning_fakes_hide_no_final_counters", || {
        let scene = Scene::new();
        let mut victim = scene.victim(VICTIM, "vmt0");
        let daemon = scene.daemon("");
        victim.work(5);
        victim.assert_exact(&daemon);
        let program = scene.idle_program("qemu-system-x86_64");
        let argv = idle_argv(&["-name", "guest=fake{n}", "-uuid", VICTIM]);
        let mut attacker = scene.tenant_of(ATTACKER, "tenant", &[], Vec::new());
        attacker.perform(&Action::KeepSpawning { program, argv, pause: PAUSE }).unwrap();
        let fakes = |metrics: &Metrics| {
            let fakes = metrics.samples("vm_running").filter(|up| up.value == 0.0).count();
            (fakes > 20).then_some(())
        };
        daemon.wait_for(SOON, "many fakes", fakes).unwrap();
        victim.work(5);
        let (sent, received) = (victim.sent as f64, victim.received as f64);
        victim.vmm.kill().unwrap();
        let labels = [("instance_id", VICTIM), ("device", "vmt0")];
        let is_final = |metrics: &Metrics| {
            let up = metrics.value("vm_running", &[("instance_id", VICTIM)])?;
            let published = metrics.value("vm_network_tx_bytes_total", &labels)?;
            (up == 0.0).then_some((published, metrics.value("vm_network_rx_bytes_total", &labels)?))
        };
        assert_eq!(daemon.wait_for(SOON, "its end", is_final).unwrap(), (sent, received));
        for _ in 0..30 {
            let ended = daemon.metrics().unwrap().value("vm_exporter_ticks_total", &[]).unwrap();
            let next = |metrics: &Metrics| {
                let is_next = metrics.value("vm_exporter_ticks_total", &[])? > ended;
                is_next.then(|| is_final(metrics))
            };
            let shown = daemon.wait_for(SOON, "the next tick", next).unwrap();
            assert_eq!(shown, Some((sent, received)), "it stays");
        }
        attacker.perform(&Action::Stop).unwrap();
    });
}
