//! Without eBPF the scrape has the baseline and the reason.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use vm_metrics_testkit::child::copy_program;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::SOON;

const BINARY: &str = env!("CARGO_BIN_EXE_vm-metrics");

/// A TAP with three sent frames and none received, and its configuration.
struct Host {
    config: PathBuf,
    bytes: f64,
    _tap: Tap,
    _dir: TempDir,
    _namespace: NetNs,
}

impl Host {
    fn new(extra: &str) -> Self {
        let namespace = NetNs::enter().unwrap();
        let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
        let frame = Frame::from_guest().udp4(300);
        for _ in 0..3 {
            tap.write_frame(&frame).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        let pid = std::process::id();
        let text = format!(
            "[sources.proc_scan]\nenabled = false\n[[sources.static_list.vms]]\nid = \"a\"\npid = {pid}\ntaps = [\"vmt0\"]\n{extra}"
        );
        std::fs::write(&config, text).unwrap();
        // Other users must be able to read it.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), everybody).unwrap();
        Self { config, bytes: 3.0 * frame.len() as f64, _tap: tap, _dir: dir, _namespace: namespace }
    }

    fn config(&self) -> &str {
        self.config.to_str().unwrap()
    }

    fn has_the_baseline(&self, metrics: &Metrics, source: &str) {
        assert_eq!(metrics.value("vm_network_tx_bytes_total", &[]), Some(self.bytes));
        assert_eq!(metrics.value("vm_network_tx_packets_total", &[]), Some(3.0));
        assert_eq!(metrics.value("vm_network_rx_bytes_total", &[]), Some(0.0));
        assert!(metrics.value("vm_cpu_seconds_total", &[]).is_some());
        assert!(metrics.value("vm_memory_rss_bytes", &[]).unwrap() > 0.0);
        let by_source = [("device", "vmt0"), ("source", source), ("attach", "none")];
        assert_eq!(metrics.value("vm_network_source_info", &by_source), Some(1.0));
        assert_eq!(metrics.samples("vm_network_tx_wire_packets_total").count(), 0, "not measured is absent");
    }
}

fn health(metrics: &Metrics, part: &str, state: &str) -> Option<f64> {
    metrics.value("vm_exporter_component_health", &[("component", part), ("state", state)])
}

#[test]
fn without_capabilities() {
    let host = Host::new("");
    // This copy is in a directory that every user may enter.
    let binary = host.config.with_file_name("vm-metrics");
    copy_program(Path::new(BINARY), &binary).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&binary);
    command.args(["serve", "--listen", "127.0.0.1:0", "--config", host.config()]);
    let daemon = Daemon::start_command(command).unwrap();
    daemon.wait_until_ready().unwrap();
    let metrics = daemon.metrics().unwrap();
    host.has_the_baseline(&metrics, "netlink");
    assert_eq!(health(&metrics, "tap_ebpf", "unsupported"), Some(1.0));
    assert_eq!(metrics.value("vm_exporter_reader_success", &[("reader", "tap_ebpf")]), Some(0.0));
    let log = daemon.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("tap_ebpf")).collect();
    assert_eq!(lines.len(), 1, "logged once: {log}");
    assert!(lines[0].contains("CAP_BPF") && lines[0].contains("errno 1"), "{}", lines[0]);
}

#[test]
fn switched_off() {
    let host = Host::new("");
    let daemon = Daemon::start(Path::new(BINARY), &["--no-ebpf", "--config", host.config()]).unwrap();
    let metrics = daemon.metrics().unwrap();
    host.has_the_baseline(&metrics, "netlink");
    assert_eq!(health(&metrics, "tap_ebpf", "disabled"), Some(1.0));
    for works in ["tap_netlink", "tap_sysfs"] {
        assert_eq!(health(&metrics, works, "healthy"), Some(1.0), "{works}");
    }
    let log = daemon.log();
    let absent = log.lines().find(|line| line.contains("INFO not here, or switched off: "));
    assert!(absent.is_some_and(|line| line.contains("tap_ebpf")), "{log}");
}

#[test]
fn both_switched_off() {
    let host = Host::new("[readers.tap_netlink]\nenabled = false\n");
    let daemon = Daemon::start(Path::new(BINARY), &["--no-ebpf", "--config", host.config()]).unwrap();
    let metrics = daemon.metrics().unwrap();
    host.has_the_baseline(&metrics, "sysfs");
    assert_eq!(health(&metrics, "tap_netlink", "disabled"), Some(1.0));
    assert_eq!(health(&metrics, "tap_sysfs", "healthy"), Some(1.0));
}

#[test]
fn more_taps_than_slots() {
    let second =
        "[[sources.static_list.vms]]\nid = \"b\"\ntaps = [\"vmt1\"]\n[readers.tap_ebpf]\nmax_nics = 1\n";
    let host = Host::new(second);
    let other = Tap::create_up("vmt1", TapOptions::default()).unwrap();
    other.write_frame(&Frame::from_guest().udp4(300)).unwrap();
    let args = ["--interval", "100ms", "--config", host.config()];
    let daemon = Daemon::start(Path::new(BINARY), &args).unwrap();
    let source = |metrics: &Metrics, source: &str| {
        metrics
            .samples("vm_network_source_info")
            .filter(|sample| sample.label("source") == Some(source))
            .count()
    };
    let one_each =
        |metrics: &Metrics| (source(metrics, "ebpf") == 1 && source(metrics, "netlink") == 1).then_some(());
    daemon.wait_for(SOON, "one TAP of each kind", one_each).unwrap();
    let metrics = daemon.metrics().unwrap();
    for device in ["vmt0", "vmt1"] {
        assert!(metrics.value("vm_network_tx_bytes_total", &[("device", device)]).unwrap() > 0.0, "{device}");
    }
    assert_eq!(health(&metrics, "tap_ebpf", "degraded"), Some(1.0));
    assert!(daemon.log().contains("as many TAPs as readers.tap_ebpf.max_nics allows"), "{}", daemon.log());
}
