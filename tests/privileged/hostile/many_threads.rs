//! Thousands of threads with vCPU names: the daemon reads a share.

use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::tenant::Action;
use vm_metrics_testkit::wait::SOON;

use super::VICTIM;
use super::lab::Scene;
use super::pace::Pace;
use super::user::ATTACKER;
use crate::isolation::isolated;

const THREADS: usize = 9000;

/// Limit of series and of read threads for a process.
const LIMIT: f64 = 1024.0;

#[test]
fn many_vcpu_threads_slow_no_tick() {
    isolated("hostile::many_threads::many_vcpu_threads_slow_no_tick", || {
        let scene = Scene::new();
        let mut victim = scene.victim(VICTIM, "vmt0");
        victim.vmm.perform(&Action::StartThreads { name: "CPU 0/KVM".to_owned(), count: 1 }).unwrap();
        let daemon = scene.daemon("");
        let pace = Pace::of(&daemon);
        let mut fake = scene.attacker("qemu-system-x86_64", &["-name", "guest=fake"]);
        let name = "CPU 7/KVM".to_owned();
        fake.perform(&Action::StartThreads { name, count: THREADS }).unwrap();

        daemon.wait_for(SOON, "the attacker's threads to be over the budget", threads_over).unwrap();
        pace.assert_kept(&daemon, 40, || victim.work(2));
        victim.assert_exact(&daemon);
        let metrics = daemon.metrics().unwrap();
        let vcpus = |id: &str| {
            let of_vm = metrics.samples("vm_vcpu_seconds_total");
            of_vm.filter(|sample| sample.label("instance_id") == Some(id)).count()
        };
        assert_eq!((vcpus(VICTIM), vcpus("fake")), (1, 1), "the same name is one vCPU");
        let waited = |id: &str| metrics.value("vm_cpu_wait_seconds_total", &[("instance_id", id)]);
        assert!(waited(VICTIM).is_some(), "the victim's threads are all read");
        assert_eq!(waited("fake"), None, "a sum without all threads is none");
        fake.perform(&Action::Stop).unwrap();
    });
}

/// Waits for the report about the attacker.
fn threads_over(metrics: &Metrics) -> Option<()> {
    let user = ATTACKER.to_string();
    let labels = [("user", user.as_str()), ("component", "proc_threads"), ("resource", "threads")];
    let over = metrics.value("vm_exporter_over_budget", &labels)?;
    (over >= THREADS as f64 - LIMIT).then_some(())
}
