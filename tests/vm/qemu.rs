//! The daemon counts an unconfigured QEMU guest exactly, in the right direction.

use std::path::Path;
use std::process::Command;

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::guest::{Guest, GuestConfig, GuestImage, GuestNic};
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::SOON;

const BINARY: &str = env!("CARGO_BIN_EXE_vm-metrics");
const HOST: [u8; 4] = [10, 0, 0, 1];

/// A guest on one TAP, and an unconfigured daemon.
struct GuestLab {
    daemon: Daemon,
    guest: Guest,
    uuid: String,
    _namespace: NetNs,
}

impl GuestLab {
    fn new(name: &str, tap: &str, args: &[&str]) -> Self {
        let image = GuestImage::prepare().unwrap();
        let namespace = NetNs::enter().unwrap();
        let daemon = Daemon::start(Path::new(BINARY), args).unwrap();
        let mut config = GuestConfig::new(name, vec![GuestNic::new(tap, HOST, [10, 0, 0, 2])]).unwrap();
        config.vcpus = 2;
        let guest = image.boot(config).unwrap();
        let uuid = guest.config().uuid.clone();
        Self { daemon, guest, uuid, _namespace: namespace }
    }

    /// Waits until a sample of this guest satisfies a condition.
    fn wait_for(&self, what: &str, name: &str, labels: &[(&str, &str)], wanted: impl Fn(f64) -> bool) -> f64 {
        let find = |metrics: &Metrics| self.value(metrics, name, labels).filter(|value| wanted(*value));
        self.daemon.wait_for(SOON, what, find).unwrap()
    }

    fn value(&self, metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        metrics.value(name, &[&[("instance_id", self.uuid.as_str())], labels].concat())
    }

    fn now(&self, name: &str) -> f64 {
        self.value(&self.daemon.metrics().unwrap(), name, &[]).unwrap_or_else(|| panic!("no {name}"))
    }
}

#[test]
fn a_guest_needs_no_configuration() {
    let mut lab = GuestLab::new("found", "vmfound0", &["--interval", "100ms"]);
    let by_ebpf = [("device", "vmfound0"), ("source", "ebpf"), ("attach", "tcx")];
    lab.wait_for("the programs on the TAP", "vm_network_source_info", &by_ebpf, |value| value == 1.0);
    let named = [("instance_name", "found"), ("hypervisor", "qemu"), ("pid", &lab.guest.pid().to_string())];
    lab.wait_for("the guest's name", "vm_info", &named, |value| value == 1.0);
    assert_eq!(lab.now("vm_allocated_vcpus"), 2.0);
    assert_eq!(lab.now("vm_allocated_memory_bytes"), f64::from(128 << 20));

    let cpu = lab.now("vm_cpu_seconds_total");
    let rss = lab.now("vm_memory_rss_bytes");
    lab.guest.run("dd if=/dev/zero of=/tmp/fill bs=1M count=24 2>&1; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done").unwrap();
    lab.wait_for("CPU time", "vm_cpu_seconds_total", &[], |value| value > cpu + 0.05);
    lab.wait_for("resident memory", "vm_memory_rss_bytes", &[], |value| value > rss + f64::from(8 << 20));
    assert!(lab.now("vm_memory_vms_bytes") > lab.now("vm_memory_rss_bytes"));

    lab.guest.ping(HOST.into(), 50, 958).unwrap();
    agrees_with_the_guest(&mut lab);
}

#[test]
fn transfers_show_in_the_right_direction() {
    const BYTES: u64 = 8 << 20;
    let mut lab = GuestLab::new("mover", "vmmover0", &["--interval", "100ms"]);
    lab.wait_for("the TAP", "vm_network_tx_bytes_total", &[], |_| true);

    lab.guest.send_to_host(0, BYTES).unwrap();
    let sent =
        lab.wait_for("the sent bytes", "vm_network_tx_bytes_total", &[], |value| value >= BYTES as f64);
    assert!(lab.now("vm_network_rx_bytes_total") < sent / 4.0);

    let received_before = lab.now("vm_network_rx_bytes_total");
    lab.guest.receive_from_host(0, BYTES).unwrap();
    let wanted = received_before + BYTES as f64;
    lab.wait_for("the received bytes", "vm_network_rx_bytes_total", &[], |value| value >= wanted);
    assert!(lab.now("vm_network_tx_bytes_total") < sent * 1.25);

    agrees_with_the_guest(&mut lab);
    for direction in ["rx", "tx"] {
        let tcp = [("direction", direction), ("transport", "tcp")];
        let metrics = lab.daemon.metrics().unwrap();
        let tcp = lab.value(&metrics, "vm_network_packets_by_transport_total", &tcp).unwrap();
        assert!(tcp > 100.0, "{direction}: {tcp}");
        let wire = lab.now(&format!("vm_network_{direction}_wire_packets_total"));
        assert!(wire >= lab.now(&format!("vm_network_{direction}_packets_total")), "{direction}");
    }
}

#[test]
fn the_snapshot_command_names_the_guest() {
    let lab = GuestLab::new("named", "vmnamed0", &["--no-ebpf"]);
    let output = Command::new(BINARY).args(["snapshot", "--json"]).output().unwrap();
    assert!(output.status.success());
    let vms: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let vm = vms["vms"].as_array().unwrap().iter().find(|vm| vm["instance_id"] == lab.uuid.as_str()).unwrap();
    assert_eq!(vm["instance_name"], "named");
    assert_eq!(vm["hypervisor_pid"], lab.guest.pid());
    assert_eq!((&vm["allocated_vcpus"], &vm["allocated_memory_bytes"]), (&2.into(), &(128 << 20).into()));
    assert_eq!(vm["nics"][0]["device"], "vmnamed0");
    for number in ["cpu_usec", "memory_rss_bytes", "memory_vms_bytes", "network_rx_bytes", "network_tx_bytes"]
    {
        assert!(vm[number].is_u64(), "{number}: {vm}");
    }
}

/// A device of the same name in the daemon's namespace is not counted for it.
#[test]
fn a_guest_in_another_namespace_is_counted() {
    let image = GuestImage::prepare().unwrap();
    let _outer = NetNs::enter().unwrap();
    let namesake = Tap::create_up("vmtwin0", TapOptions::default()).unwrap();
    namesake.write_frame(&Frame::from_guest().udp4(300)).unwrap();
    let daemon = Daemon::start(Path::new(BINARY), &["--interval", "100ms"]).unwrap();
    let (guest, netns) = {
        let inner = NetNs::enter().unwrap();
        let nic = GuestNic::new("vmtwin0", HOST, [10, 0, 0, 2]);
        (image.boot(GuestConfig::new("twin", vec![nic]).unwrap()).unwrap(), inner.inode().to_string())
    };

    let id = ("instance_id", guest.config().uuid.as_str());
    let elsewhere = [id, ("device", "vmtwin0"), ("netns", netns.as_str()), ("source", "ebpf")];
    let seen = |metrics: &Metrics| metrics.value("vm_network_source_info", &elsewhere);
    daemon.wait_for(SOON, "the guest's TAP, in its namespace", seen).unwrap();
    // No host sends to the guest, and the guest sends nothing by itself.
    let bytes = |metrics: &Metrics| metrics.value("vm_network_tx_bytes_total", &[id, ("netns", &netns)]);
    assert_eq!(bytes(&daemon.metrics().unwrap()), Some(0.0), "not the frame of the namesake");
}

/// Compares the published bytes with the guest's own `/proc/net/dev`, exactly.
fn agrees_with_the_guest(lab: &mut GuestLab) {
    let own = lab.guest.net_dev().unwrap()["eth0"];
    for (name, count) in [
        ("vm_network_rx_bytes_total", own.rx_bytes),
        ("vm_network_rx_packets_total", own.rx_packets),
        ("vm_network_tx_bytes_total", own.tx_bytes),
        ("vm_network_tx_packets_total", own.tx_packets),
    ] {
        lab.wait_for(&format!("{name} = {count}, like the guest"), name, &[], |value| value == count as f64);
    }
}
