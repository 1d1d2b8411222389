//! A descriptor that alternates between a TAP and a file.

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::tenant::Action;

use super::VICTIM;
use super::lab::Scene;
use crate::isolation::isolated;

/// With this interval the daemon inspects a young process many hundred times.
const FAST: &str = "interval = \"10ms\"\n";
const LOOKS: usize = 150;

/// The foreign TAP has the victim's name, and the thief is in the daemon's namespace.
#[test]
fn a_swapped_descriptor_takes_no_tap() {
    isolated("hostile::swapped_descriptor::a_swapped_descriptor_takes_no_tap", || {
        for daemon in [Scene::daemon, Scene::daemon_of_namespaces] {
            attack(daemon);
        }
    });
}

fn attack(start: impl Fn(&Scene, &str) -> Daemon) {
    let scene = Scene::new();
    let mut thief = scene.attacker("qemu-system-x86_64", &["-name", "guest=thief"]);
    let elsewhere = Action::OpenForeignTap { name: "vmt0".to_owned() };
    let one = i32::try_from(thief.perform(&elsewhere).unwrap()).unwrap();
    let file = Action::OpenFile { path: "/dev/null".into() };
    let other = i32::try_from(thief.perform(&file).unwrap()).unwrap();
    thief.perform(&Action::KeepSwapping { one, other, to: (50..82).collect() }).unwrap();
    let mut victim = scene.victim(VICTIM, "vmt0");
    let daemon = start(&scene, FAST);
    for _ in 0..LOOKS {
        victim.work(2);
        victim.assert_exact(&daemon);
    }
    thief.perform(&Action::Stop).unwrap();
}
