//! One attacker with many subordinate uids of a user namespace.

use std::process::Command;

use std::os::unix::process::CommandExt;

use vm_metrics_testkit::child::ChildProcess;
use vm_metrics_testkit::tenant::Action;

use super::VICTIM;
use super::lab::Scene;
use super::pace::Pace;
use super::user::{NEIGHBOUR, idle_argv};
use crate::isolation::isolated;

/// The first uid of an attacker's range.
const FIRST: u32 = 100_000;

#[test]
fn fakes_of_many_users_slow_no_tick() {
    isolated("hostile::many_users::fakes_of_many_users_slow_no_tick", || {
        attack(|scene| {
            let program = scene.idle_program("qemu-system-x86_64");
            let start = |number| {
                let mut command = Command::new(&program);
                command.args(idle_argv(&["-name", &format!("guest=fake{number}")]));
                command.uid(FIRST + number).gid(FIRST + number);
                ChildProcess::spawn("a fake", &mut command).unwrap()
            };
            (0..1300).map(start).collect()
        });
    });
}

#[test]
fn descriptors_of_many_users_slow_no_tick() {
    isolated("hostile::many_users::descriptors_of_many_users_slow_no_tick", || {
        attack(|scene| {
            let start = |number| {
                let uid = FIRST + number;
                let mut fake = scene.tenant_of(uid, "qemu-system-x86_64", &[], Vec::new());
                fake.perform(&Action::OpenMany { path: "/dev/null".into(), count: 19_000 }).unwrap();
                fake.perform(&Action::KeepOpening).unwrap();
                fake
            };
            (0..20).map(start).collect::<Vec<_>>()
        });
    });
}

/// Checks that a VM of root and one of an honest user stay exact.
fn attack<T>(begin: impl FnOnce(&Scene) -> Vec<T>) {
    let scene = Scene::new();
    let mut victim = scene.victim(VICTIM, "vmt0");
    let argv = ["-uuid", "neighbour"];
    let mut neighbour = scene.vm_of(NEIGHBOUR, "neighbour", "qemu-system-x86_64", &argv, "vmt1");
    let daemon = scene.daemon("");
    let pace = Pace::of(&daemon);
    neighbour.assert_exact(&daemon);
    let _attackers = begin(&scene);
    pace.assert_kept(&daemon, 30, || {
        victim.work(2);
        neighbour.work(2);
    });
    victim.assert_exact(&daemon);
    neighbour.assert_exact(&daemon);
}
