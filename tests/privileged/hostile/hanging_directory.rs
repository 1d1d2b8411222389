//! Managers' directories on a hanging file system delay no tick.

use serde_json::Value;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::wait::{SOON, wait_until};

use super::VICTIM;
use super::hanging_config_file::HangingFs;
use super::lab::Scene;
use super::pace::Pace;
use crate::isolation::isolated;

const SOURCES: [&str; 3] = ["vm_dir", "hypeman", "libvirt"];

/// Returns the hanging sources according to health.
fn hanging(daemon: &Daemon) -> Vec<String> {
    let health = daemon.get("/api/v1/health", None).unwrap();
    let health: Value = serde_json::from_str(health.text().unwrap()).unwrap();
    let parts = health["parts"].as_array().expect("parts");
    let hangs = |part: &&Value| {
        part["reason"].as_str().is_some_and(|reason| reason.contains("not answered since 20"))
    };
    parts.iter().filter(hangs).map(|part| part["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn hanging_directories_delay_no_tick() {
    isolated("hostile::hanging_directory::hanging_directories_delay_no_tick", || {
        let scene = Scene::new();
        let mut victim = scene.victim(VICTIM, "vmt0");
        let mut hung = HangingFs::mount_of(0, scene.directory_of(0, "hanging"));
        let directory = hung.mountpoint.to_str().unwrap().to_owned();
        let daemon = scene.daemon(&format!(
            "[sources.vm_dir]\ndir = \"{directory}/vms\"\n[sources.hypeman]\ndata_dir = \"{directory}/hypeman\"\n\
             [sources.libvirt]\ndir = \"{directory}/libvirt\"\n"
        ));
        let hang = || Ok((hanging(&daemon) == SOURCES).then_some(()));
        wait_until(SOON, "the health to name the hanging sources", hang).unwrap();
        let pace = Pace::of(&daemon);
        pace.assert_kept(&daemon, 20, || victim.work(2));
        victim.assert_exact(&daemon);
        assert_eq!(hanging(&daemon), SOURCES, "{}", daemon.log());
        hung.end();
        let none = || Ok(hanging(&daemon).is_empty().then_some(()));
        wait_until(SOON, "the sources to be asked again", none).unwrap();
        victim.work(2);
        victim.assert_exact(&daemon);
    });
}
