//! Fakes that claim the id of another user's VM.

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::{Metrics, Sample};
use vm_metrics_testkit::tenant::{Action, Tenant};
use vm_metrics_testkit::wait::SOON;

use super::VICTIM;
use super::lab::{Scene, Victim};
use super::user::{ATTACKER, NEIGHBOUR};
use crate::isolation::isolated;

const ARGV: [&str; 4] = ["-name", "guest=victim", "-uuid", VICTIM];

#[test]
fn an_older_fake_takes_no_id_of_root() {
    isolated("hostile::stolen_id::an_older_fake_takes_no_id_of_root", || {
        let scene = Scene::new();
        let fake = scene.attacker("qemu-system-x86_64", &ARGV);
        let daemon = scene.daemon("");
        daemon.id_of(fake.pid()).unwrap();
        let mut victim = scene.victim(VICTIM, "vmt0");
        assert_keeps_id(&daemon, &mut victim, &fake);
        fake.kill().unwrap();
        assert_has_plain_id(&daemon, &mut victim);
    });
}

#[test]
fn an_older_fake_takes_no_id_initially() {
    isolated("hostile::stolen_id::an_older_fake_takes_no_id_initially", || {
        let scene = Scene::new();
        let fake = scene.attacker("qemu-system-x86_64", &ARGV);
        let mut victim = scene.victim(VICTIM, "vmt0");
        let daemon = scene.daemon("");
        assert_keeps_id(&daemon, &mut victim, &fake);
        fake.kill().unwrap();
        assert_has_plain_id(&daemon, &mut victim);
    });
}

#[test]
fn a_younger_fake_takes_no_id() {
    isolated("hostile::stolen_id::a_younger_fake_takes_no_id", || {
        let scene = Scene::new();
        let mut victim = scene.vm_of(NEIGHBOUR, VICTIM, "qemu-system-x86_64", &ARGV, "vmt0");
        let fake = scene.attacker("qemu-system-x86_64", &ARGV);
        let daemon = scene.daemon("");
        assert_keeps_id(&daemon, &mut victim, &fake);
        fake.kill().unwrap();
        assert_has_plain_id(&daemon, &mut victim);
    });
}

/// The fake started before the VM's second process.
#[test]
fn a_fake_takes_no_restarted_vms_id() {
    isolated("hostile::stolen_id::a_fake_takes_no_restarted_vms_id", || {
        let scene = Scene::new();
        let mut victim = scene.vm_of(NEIGHBOUR, VICTIM, "qemu-system-x86_64", &ARGV, "vmt0");
        let daemon = scene.daemon("");
        assert_has_plain_id(&daemon, &mut victim);
        let fake = scene.attacker("qemu-system-x86_64", &ARGV);
        assert_keeps_id(&daemon, &mut victim, &fake);
        victim.vmm.kill().unwrap();
        let pause = |metrics: &Metrics| {
            let up = metrics.value("vm_running", &[("instance_id", VICTIM)])?;
            (up == 0.0).then_some(())
        };
        daemon.wait_for(SOON, "the end of the first process", pause).unwrap();
        let mut victim = scene.vm_of(NEIGHBOUR, VICTIM, "qemu-system-x86_64", &ARGV, "vmt1");
        assert_keeps_id(&daemon, &mut victim, &fake);
    });
}

/// The fake is older than the VM's process, and the daemon restarts.
#[test]
fn an_older_fake_takes_no_id_after_restart() {
    isolated("hostile::stolen_id::an_older_fake_takes_no_id_after_restart", || {
        let scene = Scene::new();
        let mut victim = scene.vm_of(NEIGHBOUR, VICTIM, "qemu-system-x86_64", &ARGV, "vmt0");
        let mut daemon = scene.daemon("");
        assert_has_plain_id(&daemon, &mut victim);
        let fake = scene.attacker("qemu-system-x86_64", &ARGV);
        victim.vmm.kill().unwrap();
        let mut victim = scene.vm_of(NEIGHBOUR, VICTIM, "qemu-system-x86_64", &ARGV, "vmt1");
        assert_keeps_id(&daemon, &mut victim, &fake);
        daemon.terminate().unwrap();
        let daemon = scene.daemon("");
        assert_keeps_id(&daemon, &mut victim, &fake);
    });
}

#[test]
fn a_monitor_takes_no_id_of_root() {
    isolated("hostile::stolen_id::a_monitor_takes_no_id_of_root", || {
        let scene = Scene::new();
        let directory = scene.directory_of(ATTACKER, "qmp");
        let mut fake = scene.attacker("qemu-system-x86_64", &["-name", "guest=harmless"]);
        let answer = |command: &str, value: &str| (command.to_owned(), value.to_owned());
        let answers = vec![
            answer("query-name", r#"{"name":"victim"}"#),
            answer("query-uuid", &format!("{{\"UUID\":\"{VICTIM}\"}}")),
            answer("query-cpus-fast", "[{},{},{}]"),
            answer("query-memory-size-summary", r#"{"base-memory":134217728}"#),
            answer("query-status", r#"{"status":"running","running":true}"#),
            answer("query-balloon", r#"{"actual":134217728}"#),
        ];
        fake.perform(&Action::ServeQmp { socket: directory.join("fake.sock"), answers }).unwrap();
        let sockets = directory.join("*.sock");
        let daemon = scene.daemon(&format!("[sources.qemu_qmp]\nsockets = [{sockets:?}]\n"));
        let heard = |metrics: &Metrics| metrics.samples("vm_allocated_vcpus").any(|one| one.value == 3.0);
        daemon.wait_for(SOON, "the monitor's answer", |metrics| heard(metrics).then_some(())).unwrap();
        let mut victim = scene.victim(VICTIM, "vmt0");
        assert_keeps_id(&daemon, &mut victim, &fake);
        fake.kill().unwrap();
        assert_has_plain_id(&daemon, &mut victim);
    });
}

/// Checks that the fake has its own id, and the victim the id that both claim.
fn assert_keeps_id(daemon: &Daemon, victim: &mut Victim, fake: &Tenant) {
    let pid = victim.vmm.pid().to_string();
    daemon.wait_for(SOON, "the victim", |metrics| info(metrics, &pid).map(drop)).unwrap();
    assert_has_plain_id(daemon, victim);
    assert_ne!(daemon.id_of(fake.pid()).unwrap(), victim.id, "the fake has the victim's id");
}

fn assert_has_plain_id(daemon: &Daemon, victim: &mut Victim) {
    let pid = victim.vmm.pid();
    for _ in 0..5 {
        victim.work(5);
        victim.assert_exact(daemon);
        assert_eq!(daemon.id_of(victim.vmm.pid()).unwrap(), victim.id, "the id of process {pid}");
    }
}

fn info<'a>(metrics: &'a Metrics, pid: &str) -> Option<&'a Sample> {
    metrics.samples("vm_info").find(|sample| sample.label("pid") == Some(pid))
}
