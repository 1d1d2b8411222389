//! A tenant's pid file with the pid of another VM is ignored.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::wait::SOON;

use super::hanging_config_file::HangingFs;
use super::lab::{Scene, Victim};
use super::pace::Pace;
use super::user::ATTACKER;
use crate::isolation::isolated;

const VICTIM: &str = "22222222-2222-4222-8222-222222222222";

/// Configures a VM whose pid is in a file of the attacker's directory.
fn jailed(pid_file: &Path) -> String {
    format!("[[sources.static_list.vms]]\nid = \"jailed\"\npid_file = {pid_file:?}\ntaps = [\"vmt9\"]\n")
}

fn put(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    chown(path, Some(ATTACKER), Some(ATTACKER)).unwrap();
}

/// Checks that the victim keeps process and bytes, and that health names file and remedy.
fn assert_refused(daemon: &Daemon, victim: &mut Victim, problem: &str) {
    let message = |_: &Metrics| daemon.log().contains(problem).then_some(());
    daemon.wait_for(SOON, problem, message).unwrap_or_else(|error| panic!("{error:#}: {}", daemon.log()));
    let pace = Pace::of(daemon);
    pace.assert_kept(daemon, 5, || victim.work(2));
    victim.assert_exact(daemon);
    let metrics = daemon.metrics().unwrap();
    let of_jailed = |name| metrics.samples(name).any(|one| one.label("instance_id") == Some("jailed"));
    assert!(!of_jailed("vm_cpu_seconds_total") && !of_jailed("vm_network_tx_bytes_total"));
}

#[test]
fn the_pid_of_another_user_does_not_count() {
    isolated("hostile::pid_file::the_pid_of_another_user_does_not_count", || {
        let scene = Scene::new();
        let mut victim = scene.victim(VICTIM, "vmt0");
        let jail = scene.directory_of(ATTACKER, "jail");
        let pid_file = jail.join("vm.pid");
        put(&pid_file, &victim.vmm.pid().to_string());
        for start in [Scene::daemon, Scene::daemon_of_root] {
            let daemon = start(&scene, &jailed(&pid_file));
            let problem = format!("vm.pid: user {ATTACKER} can change it, so it does not count");
            assert_refused(&daemon, &mut victim, &problem);
        }
    });
}

#[test]
fn an_own_pid_counts() {
    isolated("hostile::pid_file::an_own_pid_counts", || {
        let scene = Scene::new();
        let jail = scene.directory_of(ATTACKER, "jail");
        let own = scene.attacker("custom-vmm", &[]);
        let pid_file = jail.join("vm.pid");
        put(&pid_file, &own.pid().to_string());
        for start in [Scene::daemon, Scene::daemon_of_root] {
            let daemon = start(&scene, &jailed(&pid_file));
            let found = |metrics: &Metrics| {
                metrics.value("vm_cpu_seconds_total", &[("instance_id", "jailed")]).map(|_| ())
            };
            daemon
                .wait_for(SOON, "the VM", found)
                .unwrap_or_else(|error| panic!("{error:#}: {}", daemon.log()));
        }
    });
}

/// A daemon of root could read the file.
#[test]
fn a_link_to_roots_file_leaks_nothing() {
    isolated("hostile::pid_file::a_link_to_roots_file_leaks_nothing", || {
        let scene = Scene::new();
        let mut victim = scene.victim(VICTIM, "vmt0");
        let jail = scene.directory_of(ATTACKER, "jail");
        let (shadow, pid_file) = (scene.path("shadow"), jail.join("vm.pid"));
        fs::write(&shadow, "root:$6$Vm0zE9:20000:0:99999:7:::\n").unwrap();
        fs::set_permissions(&shadow, Permissions::from_mode(0o600)).unwrap();
        symlink(&shadow, &pid_file).unwrap();
        std::os::unix::fs::lchown(&pid_file, Some(ATTACKER), Some(ATTACKER)).unwrap();
        let daemon = scene.daemon_of_root(&jailed(&pid_file));
        assert_refused(&daemon, &mut victim, &format!("a link of user {ATTACKER} is on the way"));
        let sources = String::from_utf8(daemon.get("/api/v1/sources", None).unwrap().body.to_vec()).unwrap();
        for published in [sources, daemon.log(), daemon.scrape().unwrap()] {
            assert!(!published.contains("$6$"), "{published}");
        }
        drop(daemon);
        // Not even the operator's own mistake is repeated.
        let daemon = scene.daemon_of_root(&jailed(&shadow));
        assert_refused(&daemon, &mut victim, "shadow: there is no pid in it");
        assert!(!daemon.log().contains("$6$"));
    });
}

/// A FUSE file system can claim any owner for its files.
#[test]
fn the_attackers_file_system_is_not_read() {
    isolated("hostile::pid_file::the_attackers_file_system_is_not_read", || {
        let scene = Scene::new();
        let mut victim = scene.victim(VICTIM, "vmt0");
        let hanging = HangingFs::mount(scene.directory_of(ATTACKER, "hanging"));
        for start in [Scene::daemon, Scene::daemon_of_root] {
            let daemon = start(&scene, &jailed(&hanging.mountpoint.join("vm.pid")));
            let problem = format!("a file system of user {ATTACKER} is on the way");
            assert_refused(&daemon, &mut victim, &problem);
        }
    });
}

/// Tries the same with a directory of VMs that every user can write to.
#[test]
fn files_in_a_public_directory_do_not_count() {
    isolated("hostile::pid_file::files_in_a_public_directory_do_not_count", || {
        let scene = Scene::new();
        let mut victim = scene.victim(VICTIM, "vmt0");
        let vms = scene.path("vms");
        fs::create_dir(&vms).unwrap();
        let described = format!("id = \"jailed\"\npid = {}\n", victim.vmm.pid());
        put(&vms.join("vm.toml"), &described);
        let tables = format!("[sources.vm_dir]\ndir = {vms:?}\n");
        let daemon = scene.daemon_of_root(&tables);
        let problem = format!("vm.toml: user {ATTACKER} can change it, so it does not count");
        assert_refused(&daemon, &mut victim, &problem);
        drop(daemon);
        chown(vms.join("vm.toml"), Some(0), Some(0)).unwrap();
        fs::set_permissions(&vms, Permissions::from_mode(0o777)).unwrap();
        let daemon = scene.daemon_of_root(&tables);
        assert_refused(&daemon, &mut victim, "vms: other users can change it, so it does not count");
    });
}
