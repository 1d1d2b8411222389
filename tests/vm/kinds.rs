//! Network interfaces of a real QEMU: macvtaps and unmonitored kinds.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::io::dup;
use vm_metrics_testkit::child::ChildProcess;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::frames::{Frame, PEER};
use vm_metrics_testkit::macvtap::Macvtap;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::wait::SOON;

const BINARY: &str = env!("CARGO_BIN_EXE_vm-metrics");

/// Starts a QEMU whose guest never runs, because only its devices matter.
fn qemu(name: &str, network: &[&str]) -> ChildProcess {
    let mut command = Command::new("qemu-system-x86_64");
    command.args([
        "-name",
        name,
        "-S",
        "-nodefaults",
        "-display",
        "none",
        "-accel",
        "tcg",
        "-M",
        "q35",
        "-m",
        "64",
    ]);
    ChildProcess::spawn(name, command.args(network)).unwrap()
}

#[test]
fn unmonitored_nics_are_named_without_numbers() {
    let _namespace = NetNs::enter().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("vhost-user.sock");
    let socket = socket.to_str().unwrap();
    let backend = UnixListener::bind(socket).unwrap();
    thread::spawn(move || answer(backend.accept().unwrap().0));
    let chardev = format!("socket,id=c0,path={socket}");
    let mut qemu = qemu(
        "unmonitored",
        &[
            "-netdev",
            "user,id=n0",
            "-device",
            "virtio-net-pci,netdev=n0",
            "-object",
            "memory-backend-memfd,id=m0,size=64M,share=on",
            "-numa",
            "node,memdev=m0",
            "-chardev",
            &chardev,
            "-netdev",
            "vhost-user,id=n1,chardev=c0",
            "-device",
            "virtio-net-pci,netdev=n1",
        ],
    );
    let daemon = Daemon::start(Path::new(BINARY), &["--interval", "50ms"]).unwrap();
    let id = [("instance_id", "unmonitored")];
    for (kind, nic) in [("user", "n0"), ("vhost-user", socket)] {
        let labels = [id[0], ("kind", kind), ("nic", nic)];
        let message = |metrics: &Metrics| metrics.value("vm_network_unmonitored_info", &labels);
        daemon.wait_for(SOON, kind, message).unwrap();
    }
    qemu.check_running().unwrap();
    let scrape = daemon.scrape().unwrap();
    let numbers = |line: &&str| line.starts_with("vm_network_") && line.contains("unmonitored\"");
    let numbers: Vec<_> = scrape.lines().filter(numbers).collect();
    assert_eq!(numbers.len(), 2, "{numbers:?}");

    let doctor = Command::new(BINARY).arg("doctor").output().unwrap();
    let doctor = String::from_utf8(doctor.stdout).unwrap();
    for wording in ["unmonitored: user n0: ", &format!("unmonitored: vhost-user {socket}: ")] {
        assert!(doctor.contains(wording), "{doctor}");
    }
}

#[test]
fn qemus_inherited_macvtap_is_counted() {
    let _namespace = NetNs::enter().unwrap();
    let Some(macvtap) = Macvtap::create_up("vmq0").unwrap() else { panic!("this kernel has no macvtap") };
    // The child inherits only this descriptor, which does not close on exec.
    let given = dup(macvtap.as_fd()).unwrap();
    let netdev = format!("tap,id=n0,fd={}", given.as_raw_fd());
    let mut qemu = qemu("ported", &["-netdev", &netdev, "-device", "virtio-net-pci,netdev=n0"]);
    drop(given);
    let daemon = Daemon::start(Path::new(BINARY), &["--interval", "50ms"]).unwrap();
    let labels = [("instance_id", "ported"), ("device", "vmq0")];
    let attached = |metrics: &Metrics| {
        let labels = [&labels[..], &[("source", "netlink"), ("attach", "tcx")]].concat();
        metrics.value("vm_network_source_info", &labels)
    };
    daemon.wait_for(SOON, "the macvtap", attached).unwrap();
    qemu.check_running().unwrap();

    let value = |metrics: &Metrics, name| metrics.value(name, &labels).unwrap() as u64;
    let before = daemon.metrics().unwrap();
    let sent = Frame::from_guest().to(PEER).udp4(100);
    macvtap.write_frame(&sent).unwrap();
    let own = macvtap.link().hardware_address().unwrap();
    let received = Frame::to_guest().to(own).udp4(700);
    PacketSocket::bind(macvtap.peer().name()).unwrap().send(&received).unwrap();
    let arrived = |metrics: &Metrics| {
        let added = |name| value(metrics, name) - value(&before, name);
        let device = (added("vm_network_rx_bytes_total"), added("vm_network_tx_bytes_total"));
        let ebpf = (added("vm_network_rx_offered_bytes_total"), added("vm_network_tx_wire_bytes_total"));
        let expected = (received.len() as u64, sent.len() as u64);
        (device == expected && ebpf == expected).then_some(())
    };
    daemon.wait_for(SOON, "both frames", arrived).unwrap();
}

/// Serves QEMU's requests to a vhost-user backend before the guest runs: it has no features.
fn answer(mut qemu: UnixStream) {
    const GET_FEATURES: u32 = 1;
    const REPLY: u32 = 1 | 1 << 2;
    let mut header = [0; 12];
    while qemu.read_exact(&mut header).is_ok() {
        let field =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        qemu.read_exact(&mut vec![0; field(8) as usize]).unwrap();
        if field(0) == GET_FEATURES {
            let reply = [GET_FEATURES, REPLY, 8, 0, 0].map(u32::to_ne_bytes).concat();
            qemu.write_all(&reply).unwrap();
        }
    }
}
