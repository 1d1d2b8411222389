//! A host where each VM has a namespace and an equally named TAP.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use vm_metrics_testkit::child::ChildProcess;
use vm_metrics_testkit::child::copy_program;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::netns::{NetNs, enter_of};
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::skip::skip_part;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::SOON;

use crate::lab::attached_programs;
use crate::vmm::Shell;

pub(super) const PINS: &str = "/sys/fs/bpf/vm-metrics";
pub(super) const TAP: &str = "vmt0";
pub(super) const IFINDEX: u32 = 77;

/// A namespace for the daemon, and VMMs.
pub(super) struct Host {
    pub(super) shell: Shell,
    dir: TempDir,
    _namespace: NetNs,
}

/// A VM with a TAP in a foreign namespace. The test acts as the guest through `tap`.
pub(super) struct Guest {
    pub(super) id: String,
    pub(super) netns: u64,
    pub(super) tap: Tap,
    pub(super) host: PacketSocket,
    pub(super) vmm: ChildProcess,
}

impl Host {
    pub(super) fn new() -> Self {
        let namespace = NetNs::enter().unwrap();
        Self { shell: Shell::new(), dir: tempfile::tempdir().unwrap(), _namespace: namespace }
    }

    pub(super) fn guest(&self, id: &str) -> Guest {
        self.guest_after(id, 0)
    }

    /// Starts a guest that sent so many frames before the daemon could discover it.
    pub(super) fn guest_after(&self, id: &str, frames: u64) -> Guest {
        let namespace = NetNs::enter().unwrap();
        let tap = Tap::create_up(TAP, TapOptions { ifindex: IFINDEX, ..TapOptions::default() }).unwrap();
        tap.send_udp4(frames, 300).unwrap();
        let host = PacketSocket::bind(TAP).unwrap();
        let vmm = self.shell.start(id, &tap);
        Guest { id: id.to_owned(), netns: namespace.inode(), tap, host, vmm }
    }

    pub(super) fn config(&self, tables: &str) -> PathBuf {
        let path = self.dir.path().join("config.toml");
        fs::write(&path, tables).unwrap();
        path
    }

    /// Copies the daemon and its configuration to a place that every user may read.
    pub(super) fn public_files(&self, tables: &str) -> (PathBuf, PathBuf) {
        fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let binary = self.dir.path().join("vm-metrics");
        copy_program(Path::new(env!("CARGO_BIN_EXE_vm-metrics")), &binary).unwrap();
        (binary, self.config(tables))
    }

    pub(super) fn detach(&self) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_vm-metrics")).arg("detach").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(super) fn daemon(&self, tables: &str) -> Daemon {
        let config = self.config(tables);
        let args = ["--config", config.to_str().unwrap()];
        Daemon::start(Path::new(env!("CARGO_BIN_EXE_vm-metrics")), &args).unwrap()
    }
}

impl Guest {
    /// Returns the number of our programs on its device.
    pub(super) fn attached(&self) -> usize {
        let _inside = enter_of(self.vmm.pid()).unwrap();
        attached_programs(TAP)
    }

    /// Sends from the guest.
    pub(super) fn send(&self, frames: u64) -> u64 {
        self.tap.send_udp4(frames, 300).unwrap()
    }

    /// Sends from the host, and the guest takes it.
    pub(super) fn receive(&self, frames: u64) -> u64 {
        let frame = Frame::to_guest().udp4(500);
        let mut buffer = [0; 2048];
        for _ in 0..frames {
            self.host.send(&frame).unwrap();
            assert!(self.tap.read_frame(&mut buffer).unwrap().is_some());
        }
        frames * frame.len() as u64
    }

    /// Sends more frames from the host than the ring holds, without a reader. Waits until the drops are counted to the
    /// byte.
    pub(super) fn fill(&self, daemon: &Daemon, frames: u64) {
        if self.dropped(&daemon.metrics().unwrap(), "bytes").is_none() {
            return skip_part("dropped bytes", "the kernel gives reasons for drops from Linux 5.18 on");
        }
        let frame = Frame::to_guest().udp4(500);
        (0..frames).for_each(|_| self.host.send(&frame).unwrap());
        let (len, frames) = (frame.len() as f64, frames as f64);
        let dropped = |metrics: &Metrics| {
            let value = |name: &str| self.value(metrics, name);
            let packets = self.dropped(metrics, "packets")?;
            let (bytes, backlog) = (self.dropped(metrics, "bytes")?, value("vm_network_rx_backlog_bytes")?);
            let offered = value("vm_network_rx_offered_bytes_total")?;
            let ring = frames - packets;
            (packets > 0.0
                && ring > 500.0
                && bytes == packets * len
                && offered == frames * len
                && backlog == ring * len)
                .then_some(())
        };
        let what = format!("the drops of {frames} frames for {}", self.id);
        daemon.wait_for(SOON, &what, dropped).unwrap();
    }

    pub(super) fn value(&self, metrics: &Metrics, name: &str) -> Option<f64> {
        metrics.value(name, &[("instance_id", &self.id)])
    }

    /// Returns the packets or bytes that the full ring dropped.
    pub(super) fn dropped(&self, metrics: &Metrics, unit: &str) -> Option<f64> {
        let of = [("instance_id", self.id.as_str()), ("reason", "ring_full")];
        metrics.value(&format!("vm_network_rx_dropped_{unit}_total"), &of)
    }

    pub(super) fn is_counted_by(&self, metrics: &Metrics, source: &str) -> Option<()> {
        let netns = self.netns.to_string();
        let labels = [("instance_id", self.id.as_str()), ("netns", &netns), ("source", source)];
        metrics.value("vm_network_source_info", &labels).map(drop)
    }

    pub(super) fn wait_until_counted_by(&self, daemon: &Daemon, source: &str) {
        let what = format!("{} by {source}", self.id);
        daemon.wait_for(SOON, &what, |metrics| self.is_counted_by(metrics, source)).unwrap();
    }

    /// Waits until the daemon publishes exactly these sent and received bytes.
    pub(super) fn wait_for_bytes(&self, daemon: &Daemon, (tx, rx): (u64, u64)) {
        let what = format!("{tx} bytes sent and {rx} received by {}", self.id);
        let as_said = |metrics: &Metrics| {
            let sent = self.value(metrics, "vm_network_tx_bytes_total")?;
            let received = self.value(metrics, "vm_network_rx_bytes_total")?;
            assert!(sent <= tx as f64 && received <= rx as f64, "{sent} and {received}, not {what}");
            (sent == tx as f64 && received == rx as f64).then_some(())
        };
        daemon.wait_for(SOON, &what, as_said).unwrap();
    }
}

pub(super) const OFTEN: &str = "interval = \"50ms\"\n";
