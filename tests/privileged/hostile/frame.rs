//! The lab itself: without an attack the victim's bytes are exact, and fakes are what they are to be.

use std::fs;
use std::os::unix::fs::MetadataExt;

use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::tenant::Act;
use vm_metrics_testkit::wait::SOON;

use super::lab::Scene;
use super::pace::Pace;
use super::user::{NEIGHBOUR, idle_argv, open_tap};
use crate::alone::alone;

#[test]
fn a_victim_is_exact_without_an_attack() {
    alone("hostile::frame::a_victim_is_exact_without_an_attack", || {
        let scene = Scene::new();
        let mut victim = scene.victim("11111111-1111-4111-8111-111111111111", "vmt0");
        for daemon in [Scene::daemon, Scene::daemon_of_root] {
            let daemon = daemon(&scene, "");
            let pace = Pace::of(&daemon);
            pace.assert_kept(&daemon, 10, || victim.work(2));
            victim.assert_exact(&daemon);
        }
    });
}

#[test]
fn a_fake_with_its_own_tap_is_shown() {
    alone("hostile::frame::a_fake_with_its_own_tap_is_shown", || {
        let scene = Scene::new();
        let daemon = scene.daemon_of_namespaces("");
        let mut fake = scene.attacker_elsewhere("cloud-hypervisor", &["--platform", "uuid=fake"]);
        let fd = open_tap(&mut fake, "vmt0");
        fake.tell(&Act::Send { fd, frames: 3 }).unwrap();
        let pid = fake.pid().to_string();
        let shown = |metrics: &Metrics| metrics.value("vm_info", &[("instance_id", "fake"), ("pid", &pid)]);
        daemon.wait_for(SOON, "the fake", shown).unwrap();
        let bytes = |metrics: &Metrics| {
            let sent = metrics.value("vm_network_tx_bytes_total", &[("instance_id", "fake")])?;
            (sent >= 1026.0).then_some(())
        };
        daemon.wait_for(SOON, "its bytes", bytes).unwrap();
    });
}

#[test]
fn idle_fakes_of_a_neighbour_are_shown() {
    alone("hostile::frame::idle_fakes_of_a_neighbour_are_shown", || {
        let scene = Scene::new();
        let daemon = scene.daemon("");
        let mut neighbour = scene.tenant_of(NEIGHBOUR, "tenant", &[], Vec::new());
        let program = scene.idle_program("qemu-system-x86_64");
        let argv = idle_argv(&["-name", "guest=fake{n}"]);
        neighbour.tell(&Act::Spawn { program, argv, count: 3 }).unwrap();
        let three = |metrics: &Metrics| {
            let of = |number| metrics.value("vm_up", &[("instance_id", &format!("fake{number}"))]);
            (0..3).all(|number| of(number) == Some(1.0)).then_some(())
        };
        daemon.wait_for(SOON, "three fakes", three).unwrap();
        let directory = scene.directory_of(NEIGHBOUR, "own");
        assert_eq!(fs::metadata(directory).unwrap().uid(), NEIGHBOUR);
        neighbour.tell(&Act::Stop).unwrap();
        let none = |metrics: &Metrics| metrics.samples("vm_up").all(|up| up.value == 0.0).then_some(());
        daemon.wait_for(SOON, "their end", none).unwrap();
    });
}
