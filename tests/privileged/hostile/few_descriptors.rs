//! A small limit of open files beside processes with many threads.

use rustix::process::{Resource, Rlimit, setrlimit};
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::tenant::Action;
use vm_metrics_testkit::wait::SOON;

use super::VICTIM;
use super::lab::Scene;
use super::pace::Pace;
use crate::isolation::isolated;

/// Enough for the server and for some VMs.
const FILES: u64 = 256;

const FAKES: usize = 12;

#[test]
fn few_descriptors_leave_the_server_and_the_victim() {
    isolated("hostile::few_descriptors::few_descriptors_leave_the_server_and_the_victim", || {
        let scene = Scene::new();
        let mut victim = scene.victim(VICTIM, "vmt0");
        let fake = |number: usize| {
            let name = format!("guest=fake{number}");
            scene.attacker("qemu-system-x86_64", &["-name", &name])
        };
        let mut fakes: Vec<_> = (0..FAKES).map(fake).collect();
        // The daemon raises its soft limit to the hard one. Not every root may raise this process's limit again.
        setrlimit(Resource::Nofile, Rlimit { current: Some(FILES), maximum: Some(FILES) }).unwrap();
        let daemon = scene.daemon("");
        let pace = Pace::of(&daemon);
        for fake in &mut fakes {
            fake.perform(&Action::StartThreads { name: "CPU 0/KVM".to_owned(), count: 100 }).unwrap();
        }

        daemon.wait_for(SOON, "threads without files", without_files).unwrap();
        let mut message = true;
        pace.assert_kept(&daemon, 40, || {
            victim.work(2);
            message &= without_files(&daemon.metrics().unwrap()).is_some();
        });
        assert!(message, "each scan logs it");
        victim.assert_exact(&daemon);
        for fake in &mut fakes {
            fake.perform(&Action::Stop).unwrap();
        }
    });
}

fn without_files(metrics: &Metrics) -> Option<()> {
    let errors = metrics.value("vm_exporter_reader_errors_total", &[("reader", "proc_threads")])?;
    (errors > 0.0).then_some(())
}
