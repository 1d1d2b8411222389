//! Fakes with the id of a VM that ends.

use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::tenant::Action;
use vm_metrics_testkit::wait::SOON;

use super::VICTIM;
use super::lab::Scene;
use super::user::idle_argv;
use crate::isolation::isolated;

#[test]
fn fakes_hide_no_final_counters() {
    isolated("hostile::hidden_final_counters::fakes_hide_no_final_counters", || {
        let scene = Scene::new();
        let mut victim = scene.victim(VICTIM, "vmt0");
        let daemon = scene.daemon("");
        victim.work(10);
        victim.assert_exact(&daemon);
        let mut attacker = scene.attacker("tenant", &[]);
        let program = scene.idle_program("qemu-system-x86_64");
        let argv = idle_argv(&["-name", "guest=victim", "-uuid", VICTIM]);
        attacker.perform(&Action::KeepSpawning { program, argv, pause: 30 }).unwrap();
        let fakes = |metrics: &Metrics| metrics.samples("vm_info").nth(3).map(drop);
        daemon.wait_for(SOON, "some fakes", fakes).unwrap();
        // These frames may follow the last tick that saw the VM.
        victim.work(50);
        let (sent, received, id) = (victim.sent as f64, victim.received as f64, victim.id.clone());
        victim.vmm.kill().unwrap();
        let value = |metrics: &Metrics, name: &str| metrics.value(name, &[("instance_id", &id)]);
        let ended = |metrics: &Metrics| value(metrics, "vm_running").filter(|up| *up == 0.0);
        daemon.wait_for(SOON, "the end of the victim", ended).unwrap();
        let ticks = |metrics: &Metrics| metrics.value("vm_exporter_ticks_total", &[]).unwrap();
        let last = ticks(&daemon.metrics().unwrap()) + 30.0;
        let shown = |metrics: &Metrics| {
            assert_eq!(value(metrics, "vm_running"), Some(0.0));
            assert_eq!(value(metrics, "vm_network_tx_bytes_total"), Some(sent));
            assert_eq!(value(metrics, "vm_network_rx_bytes_total"), Some(received));
            (ticks(metrics) > last).then_some(())
        };
        daemon.wait_for(SOON, "thirty ticks", shown).unwrap();
        attacker.perform(&Action::Stop).unwrap();
    });
}
