//! A real Prometheus scrapes a daemon with a real TAP.

use std::path::Path;

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::http_recorder::Recorder;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::prometheus::Prometheus;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::SOON;

const CONFIG: &str = "
[sources.proc_scan]
enabled = false
[[sources.static_list.vms]]
id = \"odd \\\"name\\\"\\n\\\\ü\"
taps = [\"vmprom0\"]
";

#[test]
fn prometheus_scrapes_it_without_errors() {
    let prometheus = Prometheus::prepare().unwrap();
    let _namespace = NetNs::enter().unwrap();
    let tap = Tap::create_up("vmprom0", TapOptions::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_vm-metrics"));
    let args = ["--interval", "100ms", "--config", config.to_str().unwrap()];
    let daemon = Daemon::start(binary, &args).unwrap();
    for _ in 0..5 {
        tap.write_frame(&Frame::from_guest().udp4(100)).unwrap();
    }
    let counted = |metrics: &vm_metrics_testkit::metrics_text::Metrics| {
        metrics.value("vm_network_tx_packets_total", &[]).filter(|packets| *packets == 5.0)
    };
    daemon.wait_for(SOON, "the frames", counted).unwrap();
    prometheus.check_metrics(&daemon.scrape().unwrap()).unwrap();

    let recorder = Recorder::start(daemon.address()).unwrap();
    let server = prometheus.start(&[recorder.address()]).unwrap();
    let up = server.wait_for("up == 1").unwrap();
    assert_eq!(up.len(), 1);
    let packets = server.wait_for("vm_network_tx_packets_total{device=\"vmprom0\"} == 5").unwrap();
    assert_eq!(packets[0]["metric"]["instance_id"], "odd \"name\"\n\\ü");
    let answers = recorder.answers();
    let compressed = answers.matches("content-encoding: gzip").count();
    assert!(compressed > 0 && compressed == answers.matches("HTTP/1.1 200 OK").count(), "{answers}");

    // Another device takes the name: its counter continues, and its start time is published.
    assert!(server.query("vm_network_start_time_seconds").unwrap().is_empty(), "older than the daemon");
    drop(tap);
    let tap = Tap::create_up("vmprom0", TapOptions::default()).unwrap();
    tap.write_frame(&Frame::from_guest().udp4(100)).unwrap();
    server
        .wait_for("time() - vm_network_start_time_seconds < 60 and vm_network_tx_packets_total == 6")
        .unwrap();
    let resets = server.query("resets(vm_network_tx_packets_total[1m]) == 0").unwrap();
    assert_eq!(resets.len(), 1, "it never fell");
}
