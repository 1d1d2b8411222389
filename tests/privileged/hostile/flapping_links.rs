//! Flapping devices in a foreign namespace trigger no ticks.

use std::time::Instant;

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::tenant::Action;
use vm_metrics_testkit::wait::SOON;

use super::lab::Scene;
use super::pace::Pace;
use crate::isolation::isolated;

/// Intervals of the scene (`lab::OFTEN`) in a second.
const A_SECOND: f64 = 10.0;

/// Permitted burst of triggered ticks, plus the tolerance of an interval.
const BURST: f64 = 8.0 + 4.0;

/// Pairs of devices.
const PAIRS: usize = 200;

#[test]
fn flapping_links_trigger_no_ticks() {
    isolated("hostile::flapping_links::flapping_links_trigger_no_ticks", || {
        let scene = Scene::new();
        let mut victim = scene.victim("11111111-1111-4111-8111-111111111111", "vmt0");
        let daemon = scene.daemon_of_namespaces("");
        let mut stranger = scene.attacker_in_netns("cloud-hypervisor", &["--platform", "uuid=strange"]);
        stranger.open_tap("vmt0").unwrap();
        let is_there = |metrics: &Metrics| {
            metrics.value("vm_network_tx_bytes_total", &[("instance_id", "strange"), ("device", "vmt0")])
        };
        daemon.wait_for(SOON, "the stranger's TAP", is_there).unwrap();
        let pace = Pace::of(&daemon);
        stranger.perform(&Action::KeepFlapping { count: PAIRS }).unwrap();
        let (began, before) = (Instant::now(), ticks(&daemon));
        pace.assert_kept(&daemon, 40, || victim.work(2));
        let (ended, seconds) = (ticks(&daemon) - before, began.elapsed().as_secs_f64());
        let regular = seconds * A_SECOND;
        assert!(ended <= regular + BURST, "{ended} ticks in {seconds} s");
        stranger.perform(&Action::Stop).unwrap();
        victim.assert_exact(&daemon);
    });
}

fn ticks(daemon: &Daemon) -> f64 {
    daemon.metrics().unwrap().value("vm_exporter_ticks_total", &[]).unwrap()
}
