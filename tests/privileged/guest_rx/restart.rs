//! Drops continue while no daemon runs, and are absent where unknown.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::mount_bind;
use tempfile::TempDir;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::skip::skip;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::SOON;

use super::{bytes, frames, offer};
use crate::lab::ways;

struct Host {
    tap: Tap,
    config: PathBuf,
    _dir: TempDir,
    _namespace: NetNs,
}

impl Host {
    fn new(way: &str) -> Self {
        let namespace = NetNs::enter().unwrap();
        let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        let text = format!(
            "interval = \"50ms\"\n[sources.proc_scan]\nenabled = false\n\
             [[sources.static_list.vms]]\nid = \"a\"\ntaps = [\"vmt0\"]\n\
             [readers.tap_ebpf]\nattach = \"{way}\"\n"
        );
        fs::write(&config, text).unwrap();
        Self { tap, config, _dir: dir, _namespace: namespace }
    }

    fn start(&self) -> Daemon {
        let binary = Path::new(env!("CARGO_BIN_EXE_vm-metrics"));
        let daemon = Daemon::start(binary, &["--config", self.config.to_str().unwrap()]).unwrap();
        daemon.wait_for_ebpf().unwrap();
        daemon
    }

    fn take_all(&self) -> Vec<u64> {
        let mut buffer = vec![0; 2048];
        std::iter::from_fn(|| self.tap.read_frame(&mut buffer).unwrap()).map(|len| len as u64).collect()
    }
}

/// Waits until so many packets were offered, and returns the values.
fn once_offered(daemon: &Daemon, packets: usize) -> Metrics {
    let offered = |metrics: &Metrics| {
        let now = metrics.value("vm_network_rx_offered_packets_total", &[])?;
        assert!(now <= packets as f64, "{now} of {packets}");
        (now == packets as f64).then(|| metrics.clone())
    };
    daemon.wait_for(SOON, "the offered packets", offered).unwrap()
}

#[test]
fn drops_are_counted_while_no_daemon_runs() {
    for way in ways() {
        let host = Host::new(way);
        let sender = PacketSocket::bind("vmt0").unwrap();
        let sent: Vec<_> = frames().take(4000).collect();
        let mut sent_so_far = 0;
        let mut send = |n: usize| {
            sent[sent_so_far..sent_so_far + n].iter().for_each(|frame| offer(&sender, frame));
            sent_so_far += n;
            sent_so_far
        };
        let mut daemon = host.start();
        let all = send(1500);
        let metrics = once_offered(&daemon, all);
        if dropped(&metrics, "bytes", "ring_full").is_none() {
            return skip("the kernel gives reasons for drops from Linux 5.18 on");
        }
        daemon.kill().unwrap();
        // Sends into a full ring, then an empty one, then a full one again.
        send(500);
        let mut taken = host.take_all();
        send(1200);
        let mut daemon = host.start();
        daemon.kill().unwrap();
        let all = send(400);
        let daemon = host.start();
        once_offered(&daemon, all);
        taken.extend(host.take_all());
        let all = send(400);
        // A tick that sees the empty ring fixes the base.
        once_offered(&daemon, all);
        let waits = 400;

        let device = host.tap.link().counters().unwrap();
        assert_eq!(device.tx_packets, taken.len() as u64, "{way}");
        let backlog = |metrics: &Metrics| {
            let packets = metrics.value("vm_network_rx_backlog_packets", &[])?;
            (packets == f64::from(waits)).then(|| metrics.clone())
        };
        let metrics = daemon.wait_for(SOON, "the backlog", backlog).unwrap();
        let value = |name: &str| metrics.value(name, &[]).unwrap();
        let waiting_bytes = bytes(&sent[3600..]) as f64;
        assert_eq!(value("vm_network_rx_backlog_bytes"), waiting_bytes, "{way}");
        let reasons = ["ring_full", "filter", "qdisc", "device"];
        let packets = reasons.map(|reason| dropped(&metrics, "packets", reason));
        assert_eq!(packets, [device.tx_dropped as f64, 0.0, 0.0, 0.0].map(Some), "{way}");
        let dropped_bytes = bytes(&sent) as f64 - taken.iter().sum::<u64>() as f64 - waiting_bytes;
        let by_reason = reasons.map(|reason| dropped(&metrics, "bytes", reason));
        assert_eq!(by_reason, [Some(dropped_bytes), Some(0.0), Some(0.0), None], "{way}");
        assert_eq!(value("vm_network_rx_offered_bytes_total"), bytes(&sent) as f64, "{way}");
    }
}

fn dropped(metrics: &Metrics, unit: &str, reason: &str) -> Option<f64> {
    metrics.value(&format!("vm_network_rx_dropped_{unit}_total"), &[("reason", reason)])
}

/// Without BTF the kernel cannot be traced, and health reports it.
#[test]
fn without_btf_no_drops_are_published() {
    let host = Host::new("auto");
    let empty = host.config.with_file_name("empty");
    fs::write(&empty, "").unwrap();
    // The mount belongs to the test's namespace.
    mount_bind(&empty, "/sys/kernel/btf/vmlinux").unwrap();
    let daemon = host.start();
    let sender = PacketSocket::bind("vmt0").unwrap();
    let sent: Vec<_> = frames().take(50).collect();
    sent.iter().for_each(|frame| offer(&sender, frame));
    let metrics = once_offered(&daemon, sent.len());
    assert_eq!(metrics.value("vm_network_rx_backlog_packets", &[]), Some(50.0));
    assert_eq!(metrics.value("vm_network_rx_backlog_bytes", &[]), None);
    for reason in ["ring_full", "filter", "qdisc"] {
        let published = ["packets", "bytes"].map(|unit| dropped(&metrics, unit, reason));
        assert_eq!(published, [None, None], "{reason}");
    }
    assert_eq!(dropped(&metrics, "packets", "device"), Some(0.0));
    let degraded = [("component", "tap_ebpf"), ("state", "degraded")];
    assert_eq!(metrics.value("vm_exporter_component_health", &degraded), Some(1.0));
    let success = metrics.value("vm_exporter_reader_success", &[("reader", "tap_ebpf")]);
    assert_eq!(success, Some(1.0), "nothing that this kernel has is missing");
    assert!(daemon.log().contains("dropped bytes are not counted: "), "{}", daemon.log());
}
