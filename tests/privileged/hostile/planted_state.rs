//! Files without valid state in the place of the state file.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::wait::{SOON, wait_until};

use super::VICTIM;
use super::lab::{SERVICE, Scene};
use super::user::ATTACKER;
use crate::isolation::isolated;

/// Returns the state file of the daemon in this namespace.
fn state_file() -> PathBuf {
    let netns = fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    PathBuf::from(format!("/run/vm-metrics/ledger-{netns}.json"))
}

fn is_saved(daemon: &Daemon) -> bool {
    let healthy = [("kind", "manager"), ("component", "state"), ("state", "healthy")];
    daemon.metrics().unwrap().value("vm_exporter_component_health", &healthy) == Some(1.0)
}

#[test]
fn the_saved_state_is_for_the_daemon_alone() {
    isolated("hostile::planted_state::the_saved_state_is_for_the_daemon_alone", || {
        let scene = Scene::new();
        let mut victim = scene.victim(VICTIM, "vmt0");
        let daemon = scene.daemon("");
        victim.work(3);
        victim.assert_exact(&daemon);
        wait_until(SOON, "the state", || Ok(state_file().exists().then_some(()))).unwrap();
        assert_eq!(fs::metadata(state_file()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(is_saved(&daemon), "{}", daemon.log());
    });
}

#[test]
fn a_file_without_state_is_refused() {
    isolated("hostile::planted_state::a_file_without_state_is_refused", || {
        let scene = Scene::new();
        let mut victim = scene.victim(VICTIM, "vmt0");
        let secret = scene.path("secret");
        fs::write(&secret, "secret").unwrap();
        let node = |kind, device| {
            mknodat(CWD, state_file(), kind, Mode::RUSR | Mode::WUSR, device).unwrap();
            chown(state_file(), Some(SERVICE), None).unwrap();
        };
        let plants: [(&dyn Fn(), &str); 4] = [
            (&|| node(FileType::Fifo, 0), "is a FIFO, and no regular file"),
            // This file never ends.
            (&|| node(FileType::CharacterDevice, makedev(1, 5)), "is a device, and no regular file"),
            (&|| symlink(&secret, state_file()).unwrap(), "is a link, and no regular file"),
            (
                &|| {
                    fs::write(state_file(), "{}").unwrap();
                    chown(state_file(), Some(ATTACKER), None).unwrap();
                },
                "belongs to user 65534",
            ),
        ];
        for (plant, wording) in plants {
            plant();
            let daemon = scene.daemon("");
            victim.work(3);
            victim.assert_exact(&daemon);
            assert!(!is_saved(&daemon), "{wording}");
            assert!(daemon.log().contains(wording), "{}", daemon.log());
            let doctor = Command::new("setpriv")
                .args(["--reuid", &SERVICE.to_string(), "--clear-groups"])
                .arg(scene.path("vm-metrics"))
                .arg("doctor")
                .output()
                .unwrap();
            let doctor = String::from_utf8(doctor.stdout).unwrap();
            assert!(doctor.contains(wording), "{doctor}");
            fs::remove_file(state_file()).unwrap();
        }
        assert_eq!(fs::read(secret).unwrap(), b"secret");
    });
}
