//! A real Prometheus 3 bills VMs exactly by created timestamps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use vm_metrics_testkit::child::ChildProcess;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::prometheus::{Prometheus, PrometheusServer};
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::SOON;

const ADDRESS: &str = "127.0.0.1:10464";
const SENT: &str = "vm_network_tx_bytes_total";

/// A daemon, a Prometheus that scrapes it, and a directory that lists the VMs.
struct Host {
    daemon: Daemon,
    prometheus: PrometheusServer,
    dir: TempDir,
    _namespace: NetNs,
}

struct Vm {
    id: String,
    process: ChildProcess,
}

impl Host {
    fn start() -> Self {
        let prometheus = Prometheus::prepare_with_created_timestamps().unwrap();
        let namespace = NetNs::enter().unwrap();
        let dir = tempfile::tempdir().unwrap();
        for name in ["vms", "state"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let config = format!(
            "interval = \"100ms\"\nstate_dir = {:?}\n[sources.proc_scan]\nenabled = false\n\
             [sources.vm_dir]\ndir = {:?}\n",
            dir.path().join("state"),
            dir.path().join("vms"),
        );
        fs::write(dir.path().join("config.toml"), config).unwrap();
        let daemon = daemon(dir.path());
        let prometheus = prometheus.start(&[daemon.address()]).unwrap();
        prometheus.wait_for("up == 1").unwrap();
        Self { daemon, prometheus, dir, _namespace: namespace }
    }

    fn start_vm(&self, id: &str, tap: &str) -> Vm {
        let process = ChildProcess::spawn(id, Command::new("sleep").arg("3600")).unwrap();
        let text = format!("pid = {}\ntaps = [\"{tap}\"]\nproject = \"acme\"\nvcpus = 2\n", process.pid());
        fs::write(self.dir.path().join("new"), text).unwrap();
        fs::rename(self.dir.path().join("new"), self.file(id)).unwrap();
        Vm { id: id.to_owned(), process }
    }

    fn end(&self, mut vm: Vm) {
        vm.process.kill().unwrap();
        fs::remove_file(self.file(&vm.id)).unwrap();
    }

    fn file(&self, id: &str) -> PathBuf {
        self.dir.path().join("vms").join(format!("{id}.toml"))
    }

    /// Waits until Prometheus has a sample with this value.
    fn scraped(&self, id: &str, bytes: u64) {
        self.prometheus.wait_for(&format!("{SENT}{{instance_id=\"{id}\"}} == {bytes}")).unwrap();
    }

    /// Returns the exact increase over all samples of these series.
    fn counted(&self, series: &str) -> u64 {
        let range = self.prometheus.query(&format!("{series}[1h]")).unwrap();
        let values = |series: &serde_json::Value| -> Vec<f64> {
            let values = series["values"].as_array().unwrap().iter();
            values.map(|sample| sample[1].as_str().unwrap().parse().unwrap()).collect()
        };
        let step = |pair: &[f64]| if pair[1] < pair[0] { pair[1] } else { pair[1] - pair[0] };
        let increase = |series| values(series).windows(2).map(step).sum::<f64>();
        range.iter().map(increase).sum::<f64>() as u64
    }

    fn number(&self, promql: &str) -> f64 {
        let result = self.prometheus.query(promql).unwrap();
        assert_eq!(result.len(), 1, "{promql}: {result:?}");
        result[0]["value"][1].as_str().unwrap().parse().unwrap()
    }
}

fn daemon(dir: &Path) -> Daemon {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vm-metrics"));
    command.args(["serve", "--listen", ADDRESS, "--config"]).arg(dir.join("config.toml"));
    let daemon = Daemon::start_command(command).unwrap();
    daemon.wait_until_ready().unwrap();
    daemon
}

fn tap() -> Tap {
    Tap::create_up("vmbill0", TapOptions::default()).unwrap()
}

/// Waits until the daemon publishes these bytes.
fn published(host: &Host, id: &str, bytes: u64) {
    let shows = |metrics: &Metrics| {
        metrics.value(SENT, &[("instance_id", id)]).filter(|value| *value == bytes as f64)
    };
    host.daemon.wait_for(SOON, "the bytes that were sent", shows).unwrap();
}

/// Their series begin at their final value. The queries are those of docs/accounting.md.
#[test]
fn short_lived_vms_are_billed_in_full() {
    let host = Host::start();
    let mut sent = 0;
    for at in 0..6 {
        let id = format!("short-{at}");
        let tap = tap();
        let vm = host.start_vm(&id, "vmbill0");
        let of_vm = tap.send_udp4(5000, 958).unwrap();
        thread::sleep(Duration::from_secs(1));
        published(&host, &id, of_vm);
        host.end(vm);
        drop(tap);
        sent += of_vm;
    }
    assert_eq!(sent, 30_000_000);
    host.scraped("short-5", 5_000_000);
    assert_eq!(host.counted(SENT), sent);
    // With few samples `increase` extrapolates a lot.
    host.prometheus
        .wait_for(&format!("count_over_time({SENT}{{instance_id=\"short-5\"}}[1h]) >= 8"))
        .unwrap();
    for query in queries() {
        let billed = host.number(&query);
        assert!((sent as f64..1.2 * sent as f64).contains(&billed), "{query}: {billed}");
    }
    // Gauges end with the VM.
    let now = host.daemon.metrics().unwrap();
    assert!(now.samples("vm_allocated_vcpus").next().is_none() && now.samples("vm_info").next().is_none());
    assert_eq!(now.value("vm_exporter_instances", &[]), Some(0.0));
    assert_eq!(now.samples("vm_running").filter(|up| up.value == 0.0).count(), 6);
}

/// Returns the queries of the chapter on billing.
pub(super) fn queries() -> Vec<String> {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/accounting.md")).unwrap();
    let (_, chapter) = page.split_once("## How to bill with Prometheus").unwrap();
    let chapter = chapter.split("\n## ").next().unwrap();
    let blocks: Vec<&str> = chapter.split("```promql\n").skip(1).collect();
    let query = |block: &&str| block.split("```").next().unwrap().replace("[30d]", "[1h]");
    let queries: Vec<String> = blocks.iter().map(query).collect();
    assert_eq!(queries.len(), 2);
    queries.into_iter().map(|query| format!("sum({query})")).collect()
}

/// The VM sends more than before, so that no value shows the restart.
#[test]
fn a_restarted_vm_is_billed_for_both() {
    let host = Host::start();
    let mut sent = 0;
    for frames in [100, 300] {
        let tap = tap();
        let vm = host.start_vm("again", "vmbill0");
        let of_vm = tap.send_udp4(frames, 958).unwrap();
        host.scraped("again", of_vm);
        host.end(vm);
        sent += of_vm;
    }
    assert_eq!(host.counted(SENT), sent);
}

#[test]
fn a_recreated_taps_end_is_billed() {
    let host = Host::start();
    let mut device = tap();
    let vm = host.start_vm("remade", "vmbill0");
    let mut sent = device.send_udp4(100, 958).unwrap();
    host.scraped("remade", sent);
    // All of this falls between two scrapes.
    for frames in [300, 5, 1000] {
        drop(device);
        device = tap();
        sent += device.send_udp4(frames, 958).unwrap();
        published(&host, "remade", sent);
        sent += device.send_udp4(2, 958).unwrap();
    }
    host.scraped("remade", sent);
    assert_eq!(host.counted(SENT), sent);
    host.end(vm);
}

/// The next daemon publishes the start time of its counters, and no zero comes between.
#[test]
fn a_restarted_daemon_bills_nothing_twice() {
    let mut host = Host::start();
    let first = tap();
    let vm = host.start_vm("stays", "vmbill0");
    let mut sent = first.send_udp4(100, 958).unwrap();
    published(&host, "stays", sent);
    drop(first);
    let second = tap();
    for frames in [200, 300, 400] {
        sent += second.send_udp4(frames, 958).unwrap();
        host.scraped("stays", sent);
        host.daemon.kill().unwrap();
        sent += second.send_udp4(frames, 958).unwrap();
        host.daemon = daemon(host.dir.path());
        host.scraped("stays", sent);
    }
    assert_eq!(host.counted(SENT), sent);
    host.end(vm);
}
