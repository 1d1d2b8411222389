//! Neighbours with maximal load: ticks keep their pace, the victim stays exact.

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::tenant::{Action, Tenant};
use vm_metrics_testkit::wait::SOON;

use super::VICTIM;
use super::lab::Scene;
use super::pace::Pace;
use super::user::{ATTACKER, idle_argv};
use crate::isolation::isolated;

/// Nearly all descriptors that a process may open here.
const DESCRIPTORS: usize = 19_000;
const HOLDERS: usize = 60;

/// Starts an attacker that holds many descriptors of a file and opens more.
fn holder(mut attacker: Tenant, path: &str) -> Tenant {
    attacker.perform(&Action::OpenMany { path: path.into(), count: DESCRIPTORS }).unwrap();
    attacker.perform(&Action::KeepOpening).unwrap();
    attacker
}

#[test]
fn many_descriptors_slow_no_tick() {
    isolated("hostile::flood::many_descriptors_slow_no_tick", || {
        let argv = |number: usize| ["-name".to_owned(), format!("guest=fake{number}")];
        attack(Scene::daemon, |scene| {
            let hold = |number| {
                let argv = argv(number);
                holder(scene.attacker("qemu-system-x86_64", &[&argv[0], &argv[1]]), "/dev/null")
            };
            (0..HOLDERS).map(hold).collect()
        });
    });
}

/// The daemon inspects programs of any name for KVM VMs.
#[test]
fn many_descriptors_of_any_program_slow_no_tick() {
    isolated("hostile::flood::many_descriptors_of_any_program_slow_no_tick", || {
        attack(Scene::daemon, |scene| {
            let hold = |_| holder(scene.attacker("database", &[]), "/dev/null");
            (0..HOLDERS).map(hold).collect()
        });
    });
}

#[test]
fn many_tun_descriptors_slow_no_tick() {
    isolated("hostile::flood::many_tun_descriptors_slow_no_tick", || {
        attack(Scene::daemon, |scene| {
            let hold = |_| holder(scene.attacker("qemu-system-x86_64", &[]), "/dev/net/tun");
            (0..HOLDERS / 4).map(hold).collect()
        });
    });
}

#[test]
fn many_fakes_slow_no_tick() {
    isolated("hostile::flood::many_fakes_slow_no_tick", || {
        attack(Scene::daemon, |scene| {
            let mut attacker = scene.attacker("tenant", &[]);
            let program = scene.idle_program("qemu-system-x86_64");
            let argv = idle_argv(&["-name", "guest=fake{n}"]);
            attacker.perform(&Action::Spawn { program, argv, count: 1300 }).unwrap();
            vec![attacker]
        });
    });
}

#[test]
fn fakes_beyond_the_quota_are_reported() {
    isolated("hostile::flood::fakes_beyond_the_quota_are_reported", || {
        const FAKES: usize = 3000;
        let scene = Scene::new();
        let mut victim = scene.victim(VICTIM, "vmt0");
        let mut attacker = scene.attacker("tenant", &[]);
        let program = scene.idle_program("qemu-system-x86_64");
        let argv = idle_argv(&["-name", "guest=fake{n}"]);
        attacker.perform(&Action::Spawn { program, argv, count: FAKES }).unwrap();
        let daemon = scene.daemon("");
        let user = ATTACKER.to_string();
        let published = |metrics: &Metrics| {
            let over = metrics.samples("vm_exporter_over_budget");
            over.filter(|over| over.label("user") == Some(&user)).find(|over| over.value > 0.0).map(drop)
        };
        daemon.wait_for(3 * SOON, "who is over the budget", published).unwrap();
        for _ in 0..5 {
            victim.work(5);
            victim.assert_exact(&daemon);
            let shown = daemon.metrics().unwrap().samples("vm_info").count();
            assert!(shown < FAKES * 3 / 4, "{shown} VMs");
        }
        attacker.perform(&Action::Stop).unwrap();
    });
}

#[test]
fn short_lived_fakes_slow_no_tick() {
    isolated("hostile::flood::short_lived_fakes_slow_no_tick", || {
        attack(Scene::daemon, |scene| {
            let mut attacker = scene.attacker("tenant", &[]);
            let program = scene.idle_program("qemu-system-x86_64");
            let argv = idle_argv(&["-name", "guest=fake{n}"]);
            attacker.perform(&Action::KeepSpawning { program, argv, pause: 5 }).unwrap();
            vec![attacker]
        });
    });
}

#[test]
fn taps_in_many_namespaces_slow_no_tick() {
    isolated("hostile::flood::taps_in_many_namespaces_slow_no_tick", || {
        attack(Scene::daemon_of_namespaces, |scene| {
            let hold = |number| {
                let name = format!("guest=fake{number}");
                let mut fake = scene.attacker_in_netns("qemu-system-x86_64", &["-name", &name]);
                fake.perform(&Action::OpenForeignTaps { name: "vmt0".to_owned(), count: 32 }).unwrap();
                fake.perform(&Action::KeepOpening).unwrap();
                fake
            };
            (0..8).map(hold).collect()
        });
    });
}

/// Starts the daemon, and the attack a little later.
fn attack(daemon: impl Fn(&Scene, &str) -> Daemon, begin: impl FnOnce(&Scene) -> Vec<Tenant>) {
    let scene = Scene::new();
    let mut victim = scene.victim(VICTIM, "vmt0");
    let daemon = daemon(&scene, "");
    let pace = Pace::of(&daemon);
    victim.work(10);
    victim.assert_exact(&daemon);
    let attackers = begin(&scene);
    pace.assert_kept(&daemon, 40, || victim.work(2));
    victim.assert_exact(&daemon);
    for mut attacker in attackers {
        attacker.perform(&Action::Stop).unwrap();
    }
}
