//! A TAP with traffic, and the numbers that restarting daemons must publish.

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

/// Returns each attach method for each user.
pub(super) fn cases() -> impl Iterator<Item = (User, &'static str)> {
    let ways = ways();
    USERS.into_iter().flat_map(move |user| ways.clone().into_iter().map(move |way| (user, way)))
}

/// A TAP and a configuration for successive daemons, with the namespace's own bpffs.
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

    /// Writes the configuration with these options of `tap_ebpf` and the text after them.
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

    /// Starts this daemon, and waits until it counts by this reader.
    pub(super) fn start_as(&self, binary: &Path, source: &str) -> Daemon {
        let daemon = self.try_start(binary).unwrap();
        let counts = |metrics: &Metrics| metrics.value("vm_network_source_info", &[("source", source)]);
        daemon.wait_for(SOON, &format!("the TAP to be counted by {source}"), counts).unwrap();
        daemon
    }

    /// Starts a daemon without waiting for counts.
    pub(super) fn try_start(&self, binary: &Path) -> anyhow::Result<Daemon> {
        self.user.start(binary, &self.config)
    }

    pub(super) fn send(&self, frames: u64) {
        for _ in 0..frames {
            self.tap.write_frame(&Frame::from_guest().udp4(300)).unwrap();
        }
    }

    /// Moves frames in both directions at full speed while `work` runs. Returns the frames per direction and the
    /// result.
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
            // This also runs on a panic below, because the scope waits for the thread.
            let _stopped = StopOnDrop(&stop);
            work()
        });
        (exchanged.into_inner(), returned)
    }

    /// Runs `detach` as root, independent of the daemon's user.
    pub(super) fn detach(&self, args: &[&str]) -> String {
        let config = self.config.to_str().unwrap();
        let output = Command::new(BINARY).args(["detach", "--config", config]).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Waits until both counts of the daemon have so many frames of the guest.
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

/// The expected value of one metric.
type Expectation = (&'static str, &'static [(&'static str, &'static str)], f64);

/// Returns the expected device metrics for so many frames in each direction.
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

/// Returns the expected eBPF metrics, provided that the programs missed nothing.
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

/// Waits for the expected device and eBPF metrics.
pub(super) fn wait_for_all(daemon: &Daemon, frames: u64) {
    wait_for(daemon, &[&by_device(frames)[..], &by_programs(frames)].concat());
}

/// Waits for these values. No counter may exceed its value meanwhile.
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
