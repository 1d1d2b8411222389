//! A TAP for daemons that come and go, traffic on it, and what they are to say of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tempfile::TempDir;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::SOON;

use crate::lab::ways;
use crate::user::{USERS, User};

pub(super) const BINARY: &str = env!("CARGO_BIN_EXE_vm-metrics");

/// Each way to attach, for each user.
pub(super) fn cases() -> impl Iterator<Item = (User, &'static str)> {
    let ways = ways();
    USERS.into_iter().flat_map(move |user| ways.clone().into_iter().map(move |way| (user, way)))
}

/// A TAP and a configuration for daemons that come and go. The bpffs is the namespace's own.
pub(super) struct Host {
    pub(super) user: User,
    pub(super) tap: Tap,
    pub(super) config: PathBuf,
    _dir: TempDir,
    _namespace: NetNs,
}

impl Host {
    pub(super) fn new(user: User, way: &str) -> Self {
        Self::with(user, &format!("attach = \"{way}\"\n"))
    }

    pub(super) fn with(user: User, options: &str) -> Self {
        let namespace = NetNs::enter().unwrap();
        user.prepare_host();
        let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        let host = Self { user, tap, config, _dir: dir, _namespace: namespace };
        host.configure(options);
        host
    }

    /// With these options of `tap_ebpf`, and what follows them.
    pub(super) fn configure(&self, options: &str) {
        let text = format!(
            "interval = \"50ms\"\n[sources.proc_scan]\nenabled = false\n\
             [[sources.static_list.vms]]\nid = \"a\"\ntaps = [\"vmt0\"]\n[readers.tap_ebpf]\n{options}"
        );
        std::fs::write(&self.config, text).unwrap();
    }

    pub(super) fn start(&self) -> Daemon {
        self.start_as(Path::new(BINARY), "ebpf")
    }

    /// Starts this daemon, which counts by this source.
    pub(super) fn start_as(&self, binary: &Path, source: &str) -> Daemon {
        let daemon = self.try_start(binary).unwrap();
        let counts = |metrics: &Metrics| metrics.value("vm_network_source_info", &[("source", source)]);
        daemon.wait_for(SOON, &format!("the TAP to be counted by {source}"), counts).unwrap();
        daemon
    }

    /// Starts a daemon that need not count.
    pub(super) fn try_start(&self, binary: &Path) -> anyhow::Result<Daemon> {
        self.user.start(binary, &self.config)
    }

    pub(super) fn send(&self, frames: u64) {
        for _ in 0..frames {
            self.tap.write_frame(&Frame::from_guest().udp4(300)).unwrap();
        }
    }

    /// While this runs, frames go both ways as fast as they can: how many there were each way, and what it returns.
    pub(super) fn exchange_while<T>(&self, work: impl FnOnce() -> T) -> (u64, T) {
        let (exchanged, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let (tap, peer) = (&self.tap, PacketSocket::bind(self.tap.name()).unwrap());
        let (sent, taken) = (Frame::from_guest().udp4(300), Frame::to_guest().udp4(500));
        let returned = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = [0; 2048];
                loop {
                    tap.write_frame(&sent).unwrap();
                    peer.send(&taken).unwrap();
                    assert!(tap.read_frame(&mut buffer).unwrap().is_some());
                    exchanged.fetch_add(1, Ordering::Relaxed);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            // Also when something below panics: the scope waits for the thread.
            let _stopped = StopOnDrop(&stop);
            work()
        });
        (exchanged.into_inner(), returned)
    }

    /// As root, whoever runs the daemon.
    pub(super) fn detach(&self, args: &[&str]) -> String {
        let config = self.config.to_str().unwrap();
        let output = Command::new(BINARY).args(["detach", "--config", config]).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Waits until the daemon has counted so many frames that the guest sent, by both of its counts.
pub(super) fn wait_for_frames(daemon: &Daemon, frames: u64) {
    let frames = frames as f64;
    let udp = [("direction", "tx"), ("transport", "udp")];
    let counted = |metrics: &Metrics| {
        let packets = metrics.value("vm_network_tx_packets_total", &[])?;
        let by_ebpf = metrics.value("vm_network_packets_by_transport_total", &udp)?;
        let on_wire = metrics.value("vm_network_tx_wire_packets_total", &[])?;
        let all = [packets, by_ebpf, on_wire];
        assert!(all.iter().all(|counted| *counted <= frames), "{all:?} of {frames}");
        all.iter().all(|counted| *counted == frames).then_some(())
    };
    daemon.wait_for(SOON, &format!("{frames} frames"), counted).unwrap();
}

/// What one metric is to be.
type Expectation = (&'static str, &'static [(&'static str, &'static str)], f64);

/// What the devices say of so many frames that went each way.
fn by_device(frames: u64) -> [Expectation; 4] {
    let (sent, taken) = (Frame::from_guest().udp4(300).len(), Frame::to_guest().udp4(500).len());
    let frames = frames as f64;
    [
        ("vm_network_tx_packets_total", &[], frames),
        ("vm_network_tx_bytes_total", &[], frames * sent as f64),
        ("vm_network_rx_packets_total", &[], frames),
        ("vm_network_rx_bytes_total", &[], frames * taken as f64),
    ]
}

/// What only the programs say of them, when they lack none.
fn by_programs(frames: u64) -> [Expectation; 8] {
    let [_, (_, _, sent), _, (_, _, taken)] = by_device(frames);
    let frames = frames as f64;
    [
        ("vm_network_tx_wire_bytes_total", &[], sent),
        ("vm_network_packets_by_transport_total", &[("direction", "tx"), ("transport", "udp")], frames),
        ("vm_network_tx_gap_packets_total", &[], 0.0),
        ("vm_network_rx_offered_packets_total", &[], frames),
        ("vm_network_rx_offered_bytes_total", &[], taken),
        ("vm_network_packets_by_transport_total", &[("direction", "rx"), ("transport", "udp")], frames),
        ("vm_network_rx_gap_packets_total", &[], 0.0),
        ("vm_network_rx_backlog_packets", &[], 0.0),
    ]
}

pub(super) fn wait_for_device(daemon: &Daemon, frames: u64) {
    wait_for(daemon, &by_device(frames));
}

/// By the device and by the programs.
pub(super) fn wait_for_all(daemon: &Daemon, frames: u64) {
    wait_for(daemon, &[&by_device(frames)[..], &by_programs(frames)].concat());
}

/// No counter may be ahead meanwhile.
fn wait_for(daemon: &Daemon, expected: &[Expectation]) {
    let all = |metrics: &Metrics| {
        let mut is_all = true;
        for (name, labels, wanted) in expected {
            let value = metrics.value(name, labels)?;
            assert!(value <= *wanted || !name.ends_with("_total"), "{name} is {value} of {wanted}");
            is_all &= value == *wanted;
        }
        is_all.then_some(())
    };
    daemon.wait_for(SOON, &format!("{expected:?}"), all).unwrap();
}

struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
