//! Another user plants the daemon's directories, or links in their place.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, mount};
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::wait::SOON;

use super::VICTIM;
use super::lab::Scene;
use super::user::ATTACKER;
use crate::isolation::isolated;

const PINS: &str = "/sys/fs/bpf/vm-metrics";

/// Daemons of the service user and of root.
const DAEMONS: [fn(&Scene, &str) -> Daemon; 2] = [Scene::daemon, Scene::daemon_of_root];

/// Runs a command as the attacker.
fn attack(command: &[&str]) {
    let user = ATTACKER.to_string();
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", &user, "--regid", &user, "--clear-groups"]).args(command);
    assert!(setpriv.status().unwrap().success(), "{command:?}");
}

/// Returns a directory in which every user may create files, like `/tmp`.
fn public_directory(scene: &Scene) -> PathBuf {
    let path = scene.path("public");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o1777)).unwrap();
    path
}

fn wait_for_health(daemon: &Daemon, part: &str, state: &str) {
    let labels = [("component", part), ("state", state)];
    let is_so = |metrics: &Metrics| {
        (metrics.value("vm_exporter_component_health", &labels) == Some(1.0)).then_some(())
    };
    daemon.wait_for(SOON, &format!("{part} to be {state}"), is_so).unwrap();
}

fn doctor(scene: &Scene) -> String {
    let mut command = Command::new(scene.path("vm-metrics"));
    command.args(["doctor", "--config"]).arg(scene.path("config.toml"));
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn planted_pins_are_refused() {
    isolated("hostile::planted_directories::planted_pins_are_refused", || {
        let scene = Scene::new();
        let target = scene.directory_of(ATTACKER, "target");
        let mut victim = scene.victim(VICTIM, "vmt0");
        for (plant, wording) in [
            (vec!["mkdir", PINS], "/sys/fs/bpf/vm-metrics belongs to user 65534"),
            (vec!["ln", "-s", target.to_str().unwrap(), PINS], "vm-metrics is a link that user 65534 made"),
        ] {
            attack(&plant);
            for start in DAEMONS {
                let daemon = start(&scene, "");
                victim.work(3);
                victim.assert_exact(&daemon);
                wait_for_health(&daemon, "tap_ebpf", "degraded");
                let message = "reader tap_ebpf: no pins: readers.tap_ebpf.pin_dir: ";
                assert!(daemon.log().contains(message) && daemon.log().contains(wording), "{}", daemon.log());
            }
            assert!(doctor(&scene).contains(wording), "{}", doctor(&scene));
            assert!(is_empty(&target));
            attack(&["rm", "-d", PINS]);
        }
    });
}

/// systemd mounts the bpffs for root alone. That is healthy, but the daemon reports it.
#[test]
fn a_denied_pin_directory_is_reported() {
    isolated("hostile::planted_directories::a_denied_pin_directory_is_reported", || {
        let scene = Scene::new();
        mount("bpf", "/sys/fs/bpf", "bpf", MountFlags::empty(), Some(c"mode=0700")).unwrap();
        let mut victim = scene.victim(VICTIM, "vmt0");
        let daemon = scene.daemon("");
        victim.work(3);
        victim.assert_exact(&daemon);
        wait_for_health(&daemon, "tap_ebpf", "degraded");
        let wording = "cannot create /sys/fs/bpf/vm-metrics: Permission denied";
        assert!(daemon.log().contains(wording), "{}", daemon.log());
        let success =
            daemon.metrics().unwrap().value("vm_exporter_reader_success", &[("reader", "tap_ebpf")]);
        assert_eq!(success, Some(1.0));
    });
}

#[test]
fn detach_removes_nothing_behind_a_link() {
    isolated("hostile::planted_directories::detach_removes_nothing_behind_a_link", || {
        let scene = Scene::new();
        let precious = scene.path("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "").unwrap();
        let precious = precious.to_str().unwrap();
        attack(&["mkdir", PINS]);
        attack(&["ln", "-s", precious, "/sys/fs/bpf/vm-metrics/v1-1"]);
        attack(&["mkdir", "/sys/fs/bpf/vm-metrics/v2-1"]);
        attack(&["ln", "-s", precious, "/sys/fs/bpf/vm-metrics/v2-1/links"]);
        let mut command = Command::new(scene.path("vm-metrics"));
        assert!(command.args(["detach", "--all"]).status().unwrap().success());
        assert!(scene.path("precious/file").exists());
    });
}

#[test]
fn a_planted_state_directory_is_refused() {
    isolated("hostile::planted_directories::a_planted_state_directory_is_refused", || {
        let scene = Scene::new();
        let public = public_directory(&scene);
        let target = scene.path("target");
        fs::create_dir(&target).unwrap();
        let mut victim = scene.victim(VICTIM, "vmt0");
        let state = public.join("state");
        let planted = state.to_str().unwrap();
        for (plant, wording) in [
            (vec!["mkdir", "-m", "777", planted], "/public/state belongs to user 65534"),
            (
                vec!["ln", "-s", target.to_str().unwrap(), planted],
                "/public/state is a link that user 65534 made",
            ),
        ] {
            attack(&plant);
            for start in DAEMONS {
                let daemon = start(&scene, &format!("state_dir = {state:?}\n"));
                victim.work(3);
                victim.assert_exact(&daemon);
                wait_for_health(&daemon, "state", "failed");
                let log = daemon.log();
                assert!(log.contains("manager state is off: state_dir: ") && log.contains(wording), "{log}");
            }
            assert!(doctor(&scene).contains(wording), "{}", doctor(&scene));
            // A kernel with `fs.protected_symlinks` blocks the link for every user.
            assert!(is_empty(&target) && (state.is_symlink() || is_empty(&state)));
            attack(&["rm", "-rf", planted]);
        }
    });
}

/// Orchestrators would talk to the owner of the directory, and the daemon would trust its content.
#[test]
fn a_planted_directory_has_no_push_socket() {
    isolated("hostile::planted_directories::a_planted_directory_has_no_push_socket", || {
        let scene = Scene::new();
        let planted = public_directory(&scene).join("run");
        attack(&["mkdir", planted.to_str().unwrap()]);
        let socket = planted.join("push.sock");
        let daemon = scene.daemon(&format!("[sources.push]\nsocket = {socket:?}\n"));
        wait_for_health(&daemon, "push", "degraded");
        assert!(daemon.log().contains("no VMs can be pushed"), "{}", daemon.log());
        assert!(daemon.log().contains("/public/run belongs to user 65534"), "{}", daemon.log());
        assert!(is_empty(&planted));
    });
}
