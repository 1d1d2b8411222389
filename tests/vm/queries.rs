//! Runs the documented queries in a real Prometheus on known work.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::prometheus::{Prometheus, PrometheusServer};
use vm_metrics_testkit::puppet::{self, Memory, Puppet};
use vm_metrics_testkit::tap::{Tap, TapOptions};

use crate::billing;

const MIB: u64 = 1 << 20;

/// Seconds of the ranges `[5m]`, which cover the whole test.
const RANGE: f64 = 300.0;

/// Prometheus extrapolates by a scrape or two at each end.
const EXTRAPOLATED: f64 = 1.4;

/// More than the ring of a TAP holds.
const UNREAD: usize = 1700;

/// The process of a VM, see `puppet`.
#[test]
fn the_puppet() {
    puppet::run_if_asked().unwrap();
}

/// The rows of one target: labels and the range of the value.
type Rows = Vec<(Vec<(&'static str, String)>, Range<f64>)>;

/// The work of the VMs between the first scrapes and the last.
struct Workload {
    /// Sent bytes by VM, busy and calm.
    sent: [f64; 2],
    dropped: f64,
    reason: &'static str,
    backlog: f64,
    wait_seconds: [f64; 2],
    now: Metrics,
}

#[test]
fn documented_queries_measure_the_vms_work() {
    let mut scene = Scene::start();
    let done = scene.act();
    let queries = documented();
    assert_eq!(queries.len(), 12, "each query of the page has its rows here");
    for (title, query) in &queries {
        scene.check(title, query, &done.expected(title));
    }
    // These queries sum a VM over its hosts, and both targets of this host count.
    for query in billing::queries() {
        let rows = scene.prometheus.query(&query).unwrap();
        let billed: f64 = rows[0]["value"][1].as_str().unwrap().parse().unwrap();
        assert!(grown(2.0 * done.sent.iter().sum::<f64>()).contains(&billed), "{query}: {billed}");
    }
}

#[test]
fn queries_of_the_readme_are_documented() {
    let readme = block_of(&page("README.md"));
    let lines: Vec<&str> = readme.lines().map(|line| line.split(" #").next().unwrap().trim()).collect();
    assert_eq!(lines.len(), 8);
    let documented = documented();
    for line in lines {
        assert!(documented.iter().any(|(_, query)| query == line), "{line} is not in docs/queries.md");
    }
}

struct Scene {
    promtool: Prometheus,
    prometheus: PrometheusServer,
    /// Two addresses of one daemon, which Prometheus takes for two targets.
    targets: [String; 2],
    daemon: Daemon,
    puppets: [Puppet; 2],
    taps: [Tap; 2],
    dir: TempDir,
    _namespace: NetNs,
}

impl Scene {
    fn start() -> Self {
        let promtool = Prometheus::prepare().unwrap();
        let namespace = NetNs::enter().unwrap();
        let taps = ["vmquery0", "vmquery1"].map(|name| Tap::create_up(name, TapOptions::default()).unwrap());
        let puppets = [(); 2].map(|()| Puppet::start("queries::the_puppet").unwrap());
        let dir = tempfile::tempdir().unwrap();
        let mut config =
            "interval = \"100ms\"\n[readers.tap_ebpf]\npin = false\n[sources.proc_scan]\nenabled = false\n"
                .to_owned();
        for (at, ((id, memory), puppet)) in
            [("busy", 8 * MIB), ("calm", 1024 * MIB)].into_iter().zip(&puppets).enumerate()
        {
            config += &format!(
                "[[sources.static_list.vms]]\nid = \"{id}\"\nproject = \"of-{id}\"\npid = {}\nhypervisor = \"qemu\"\n\
                 taps = [\"vmquery{at}\"]\nvcpus = 2\nmemory_bytes = {memory}\n",
                puppet.pid()
            );
        }
        let file = dir.path().join("config.toml");
        fs::write(&file, config).unwrap();
        let daemon =
            Daemon::start(Path::new(env!("CARGO_BIN_EXE_vm-metrics")), &["--config", file.to_str().unwrap()])
                .unwrap();
        let port = daemon.address().port();
        let targets = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
        let prometheus = promtool.start(&targets).unwrap();
        Self { promtool, prometheus, targets, daemon, puppets, taps, dir, _namespace: namespace }
    }

    /// Makes the VMs work, send and receive between the first scrapes and the last.
    fn act(&mut self) -> Workload {
        let Self { promtool, prometheus, puppets: [busy, calm], daemon, taps, dir, .. } = self;
        let scraped = |promql: &str| prometheus.wait_for(promql).map(drop).unwrap();
        let vcpu = busy.start_thread("CPU 0/KVM").unwrap();
        let worker = busy.start_thread("worker").unwrap();
        let rival = calm.start_thread("CPU 0/KVM").unwrap();
        busy.map(Memory::Anon, 24 * MIB, &dir.path().join("none")).unwrap();
        scraped("count(count_over_time(vm_vcpu_wait_seconds_total[1m]) >= 5) == 4");
        scraped("count(vm_network_source_info{source=\"ebpf\"}) == 4");
        let vcpus = [(busy.pid(), vcpu), (calm.pid(), rival)];
        let before = vcpus.map(wait_of);
        // Both run on one CPU, so that each waits for the other.
        busy.pin(0).unwrap();
        calm.pin(0).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| calm.work(rival, 400).unwrap());
            busy.work(vcpu, 400).unwrap();
        });
        busy.work(worker, 300).unwrap();
        let frame = Frame::from_guest().udp4(958);
        let sent = [2000_u32, 500].map(f64::from);
        for (tap, frames) in taps.iter().zip(sent) {
            (0..frames as u32).for_each(|_| tap.write_frame(&frame).unwrap());
        }
        let host = PacketSocket::bind("vmquery0").unwrap();
        (0..UNREAD).for_each(|_| drop(host.send(&Frame::to_guest().udp4(500))));
        let dropped = taps[0].link().counters().unwrap().tx_dropped as f64;
        assert!(dropped > 0.0);
        let sent = sent.map(|frames| frames * frame.len() as f64);
        scraped(&format!("count(vm_network_tx_bytes_total == {}) == 2", sent[0]));
        scraped(&format!("count(vm_network_tx_bytes_total == {}) == 2", sent[1]));
        // The percentile needs more samples, and each target a complete scrape.
        scraped(&format!(
            "count(count_over_time((vm_network_tx_bytes_total == {})[1m:1s]) >= 8) == 2",
            sent[0]
        ));
        let now = daemon.metrics().unwrap();
        promtool.check_metrics(&daemon.scrape().unwrap()).unwrap();
        let is_told = now.value(
            "vm_network_rx_dropped_packets_total",
            &[("instance_id", "busy"), ("reason", "ring_full")],
        );
        Workload {
            sent,
            dropped,
            reason: if is_told.is_some() { "ring_full" } else { "device" },
            backlog: UNREAD as f64 - dropped,
            wait_seconds: [0, 1].map(|vm| wait_of(vcpus[vm]) - before[vm]),
            now,
        }
    }

    /// Checks that each target has exactly these rows.
    fn check(&self, title: &str, query: &str, expected: &Rows) {
        // These windows fit into the duration of the test.
        let query = query.replace("[30d:5m]", "[1m:1s]");
        let later = if title == STALE { Duration::from_secs(60) } else { Duration::ZERO };
        if title == STALE {
            assert_eq!(self.prometheus.query(&query).unwrap(), Vec::<Value>::new(), "it is not stale yet");
        }
        let rows = self.prometheus.query_in(later, &query).unwrap();
        assert_eq!(rows.len(), 2 * expected.len(), "{title}: {rows:?}");
        for target in &self.targets {
            for (labels, range) in expected {
                let is_it = |row: &&Value| {
                    row["metric"]["instance"] == **target
                        && labels.iter().all(|(name, value)| row["metric"][name] == **value)
                };
                let row = rows
                    .iter()
                    .find(is_it)
                    .unwrap_or_else(|| panic!("{title}: no {labels:?} of {target}: {rows:?}"));
                let value: f64 = row["value"][1].as_str().unwrap().parse().unwrap();
                assert!(range.contains(&value), "{title}: {labels:?} is {value}, not in {range:?}");
            }
        }
    }
}

const STALE: &str = "A daemon that is away or stale";

impl Workload {
    fn expected(&self, title: &str) -> Rows {
        let vm = |id: &str| vec![("instance_id", id.to_owned())];
        let both = |values: [f64; 2], factor: f64| -> Rows {
            let rows = ["busy", "calm"].into_iter().zip(values);
            rows.map(|(id, value)| (vm(id), grown(value * factor))).collect()
        };
        let of = |name: &str, id: &str| self.now.value(name, &[("instance_id", id)]).unwrap();
        let rss = of("vm_memory_rss_bytes", "busy") / of("vm_allocated_memory_bytes", "busy");
        match title {
            "Top talkers" | "95th percentile of a month" => both(self.sent, 8.0 / RANGE),
            "Transfer of a month" => both(self.sent, 1.0),
            "Traffic of a project" => {
                let rows = ["of-busy", "of-calm"].into_iter().zip(self.sent);
                rows.map(|(project, sent)| (vec![("project", project.to_owned())], grown(sent / RANGE)))
                    .collect()
            }
            "Drops by reason" => {
                let labels = [vm("busy"), vec![("reason", self.reason.to_owned())]].concat();
                vec![(labels, grown(self.dropped / RANGE))]
            }
            "VMs that lost packets in the kernel" => vec![(vm("busy"), grown(self.dropped))],
            "Packets that wait for a guest" => vec![(vm("busy"), self.backlog..self.backlog + 1.0)],
            // Two vCPUs each; a process needs a little for itself.
            "CPU of the allocation" => vec![
                (vm("busy"), 0.7 / 2.0 / RANGE..1.2 / 2.0 / RANGE),
                (vm("calm"), 0.4 / 2.0 / RANGE..0.8 / 2.0 / RANGE),
            ],
            "Steal" => both(self.wait_seconds, 1.0 / RANGE),
            "Overhead of the VMM" => {
                vec![(vm("busy"), 0.3 / RANGE..0.7 / RANGE), (vm("calm"), 0.0..0.2 / RANGE)]
            }
            "Memory over the allocation" => vec![(vm("busy"), 0.95 * rss..1.05 * rss)],
            // A minute after the last scrape.
            STALE => vec![(Vec::new(), 55.0..80.0)],
            other => panic!("{other} is not compared with anything"),
        }
    }
}

/// The range of Prometheus's value for an increase.
fn grown(by: f64) -> Range<f64> {
    0.999 * by..EXTRAPOLATED * by + f64::EPSILON
}

/// Returns the seconds that a thread waited for a CPU, according to the kernel.
fn wait_of((pid, thread): (u32, u32)) -> f64 {
    let file = format!("/proc/{pid}/task/{thread}/schedstat");
    let times = fs::read_to_string(file).unwrap();
    times.split(' ').nth(1).unwrap().parse::<f64>().unwrap() / 1e9
}

/// Returns the titles and queries of the page.
fn documented() -> Vec<(String, String)> {
    let page = page("docs/queries.md");
    let sections: Vec<&str> = page.split("\n### ").skip(1).collect();
    let queries = sections.iter().map(|section| {
        let title = section.lines().next().unwrap();
        (title.to_owned(), block_of(section).trim().to_owned())
    });
    let queries: Vec<_> = queries.collect();
    assert_eq!(page.matches("```promql").count(), queries.len(), "one query for each title");
    queries
}

fn block_of(text: &str) -> String {
    let (_, block) = text.split_once("```promql\n").unwrap();
    block.split("```").next().unwrap().to_owned()
}

fn page(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}
