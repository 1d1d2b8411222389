//! The push of eBPF metrics of a real TAP. Needs root.

use std::path::Path;

use serde_json::Value;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::otlp::OtlpSink;
use vm_metrics_testkit::skip::skip;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::victoria_metrics::VictoriaMetrics;
use vm_metrics_testkit::wait::{SOON, wait_until};

use crate::setup::{attributes, metrics, often};

/// Configures one VM with this TAP, and a push with these keys.
fn config(tap: &str, push: &str) -> String {
    format!(
        "interval = \"100ms\"\n[sources.proc_scan]\nenabled = false\n[[sources.static_list.vms]]\nid = \"a\"\n\
         taps = [\"{tap}\"]\n[readers.tap_ebpf]\npin = false\n[exporters.otlp]\n{push}"
    )
}

#[test]
fn ebpf_only_metrics_are_pushed() {
    if !rustix::process::geteuid().is_root() {
        return skip("needs root");
    }
    // The sink may download its packages, which a namespace cannot do.
    drop(OtlpSink::start(&[]).unwrap());
    let _namespace = NetNs::enter().unwrap();
    let sink = OtlpSink::start(&[]).unwrap();
    let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let push = often(&format!("http://{}", sink.grpc()), "protocol = \"grpc\"").unwrap();
    std::fs::write(&config, self::config("vmt0", &push)).unwrap();
    let args = ["--config", config.to_str().unwrap()];
    let daemon = Daemon::start(Path::new(env!("CARGO_BIN_EXE_vm-metrics")), &args).unwrap();
    daemon.wait_for_ebpf().unwrap();
    for _ in 0..5 {
        tap.write_frame(&Frame::from_guest().udp4(100)).unwrap();
    }
    let pushed = || Ok((udp_sent(&sink).as_deref() == Some("5")).then_some(()));
    wait_until(SOON, "five UDP packets at the collector", pushed).unwrap();
}

/// Reads both from a store with Prometheus naming.
#[test]
fn pushed_and_scraped_ebpf_names_are_equal() {
    if !rustix::process::geteuid().is_root() {
        return skip("needs root");
    }
    let victoria_metrics = VictoriaMetrics::prepare().unwrap();
    let _namespace = NetNs::enter().unwrap();
    let server = victoria_metrics.start().unwrap();
    let _tap = Tap::create_up("vmt1", TapOptions::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let push = often(&format!("http://{}/opentelemetry", server.address()), "").unwrap();
    std::fs::write(&config, self::config("vmt1", &push)).unwrap();
    let args = ["--config", config.to_str().unwrap()];
    let daemon = Daemon::start(Path::new(env!("CARGO_BIN_EXE_vm-metrics")), &args).unwrap();
    daemon.wait_for_ebpf().unwrap();
    crate::stores::compare(&daemon, || server.series());
}

/// Returns the number of sent UDP packets in the last request.
fn udp_sent(sink: &OtlpSink) -> Option<String> {
    let last = sink.requests().pop()?;
    let metric =
        metrics(&last).iter().find(|metric| metric["name"] == "vm_network_packets_by_transport_total")?;
    let is_it = |point: &&Value| {
        let labels = attributes(point);
        let has = |name: &str, value: &str| labels.contains(&(name.to_owned(), value.to_owned()));
        has("direction", "tx") && has("transport", "udp")
    };
    let point = metric["sum"]["dataPoints"].as_array()?.iter().find(is_it)?;
    point["asInt"].as_str().map(str::to_owned)
}
