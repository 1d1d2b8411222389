//! A real TAP in a namespace counts frames exactly and leaves nothing.

use std::fs;
use std::process::Command;

use vm_metrics_testkit::bpf::Program;
use vm_metrics_testkit::frames::{ETHERNET_HEADER, Frame, VNET_HEADER};
use vm_metrics_testkit::link::{Link, LinkCounters};
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::tap::{Tap, TapOptions};

#[test]
fn the_device_counts_every_frame_of_both_directions() {
    let _netns = NetNs::enter().unwrap();
    let tap = Tap::create_up("vmtap0", TapOptions::default()).unwrap();
    assert_eq!(tap.link().counters().unwrap(), LinkCounters::default(), "another sender on this device");

    let sent = all_kinds(&Frame::from_guest());
    for frame in &sent {
        tap.write_frame(frame).unwrap();
    }
    let socket = PacketSocket::bind("vmtap0").unwrap();
    let offered = all_kinds(&Frame::to_guest());
    for frame in &offered {
        socket.send(frame).unwrap();
    }
    let before_reading = tap.link().counters().unwrap();
    assert_eq!(before_reading.tx_packets, 0, "not delivered until the guest takes it");

    for frame in &offered {
        let mut buffer = [0; 2048];
        let length = tap.read_frame(&mut buffer).unwrap().expect("a frame waits");
        assert!(&buffer[..length] == frame, "arrived as it was sent");
    }
    assert_eq!(tap.read_frame(&mut [0; 2048]).unwrap(), None);
    let counted = tap.link().counters().unwrap();
    assert_eq!((counted.rx_packets, counted.rx_bytes), (sent.len() as u64, bytes(&sent)));
    assert_eq!((counted.tx_packets, counted.tx_bytes), (offered.len() as u64, bytes(&offered)));
}

#[test]
fn jumbo_frames_need_the_mtu_and_pass() {
    let _netns = NetNs::enter().unwrap();
    let tap = Tap::create_up("vmtap0", TapOptions::default()).unwrap();
    let jumbo = Frame::to_guest().udp4(9000 - 28);
    let socket = PacketSocket::bind("vmtap0").unwrap();
    socket.send(&jumbo).unwrap_err();
    tap.link().set_mtu(9000).unwrap();
    socket.send(&jumbo).unwrap();
    assert_eq!(tap.read_frame(&mut [0; 9100]).unwrap(), Some(9000 + ETHERNET_HEADER));
    tap.write_frame(&Frame::from_guest().udp4(9000 - 28)).unwrap();
    assert_eq!(tap.link().counters().unwrap().rx_bytes, 9014);
}

/// The device counts one frame, but a guest without offload reads many.
#[test]
fn without_offload_a_gso_frame_is_segmented() {
    let _netns = NetNs::enter().unwrap();
    let whole = TapOptions { vnet_hdr: true, offload: true, ..TapOptions::default() };
    for (name, options, packets) in [("whole", whole, 1), ("cut", TapOptions { offload: false, ..whole }, 4)]
    {
        let tap = Tap::create_up(name, options).unwrap();
        tap.write_frame(&Frame::from_guest().gso(1000).tcp4(4000)).unwrap();
        tap.write_frame(&Frame::from_guest().gso(1000).tcp6(4000)).unwrap();
        tap.write_frame(&Frame::from_guest().gso(1000).udp4(4000)).unwrap();
        tap.write_frame(&Frame::from_guest().vnet_header().arp()).unwrap();
        let counted = tap.link().counters().unwrap();
        let headers = 54 + 74 + 42 + 42;
        assert_eq!((counted.rx_packets, counted.rx_bytes), (4, 3 * 4000 + headers), "{name}");

        let socket = PacketSocket::bind_with_vnet_header(name).unwrap();
        socket.send(&Frame::to_guest().gso(1000).tcp4(4000)).unwrap();
        let mut buffer = [0; 5000];
        let mut read = Vec::new();
        while let Some(length) = tap.read_frame(&mut buffer).unwrap() {
            read.push(length);
        }
        assert_eq!(read, vec![4000 / packets + 54 + VNET_HEADER; packets], "{name}");
        assert_eq!(tap.link().counters().unwrap().tx_packets, packets as u64, "{name}");
    }
}

#[test]
fn each_queue_is_a_file_descriptor() {
    let _netns = NetNs::enter().unwrap();
    let tap = Tap::create_up("vmtap0", TapOptions { multi_queue: true, ..TapOptions::default() }).unwrap();
    let queue = tap.open_queue().unwrap();
    tap.write_frame(&Frame::from_guest().arp()).unwrap();
    queue.write_frame(&Frame::from_guest().arp()).unwrap();
    assert_eq!(tap.link().counters().unwrap().rx_packets, 2);
}

#[test]
fn a_namespace_and_its_devices_are_removed() {
    let devices = || names("/sys/class/net");
    let before = (devices(), current("net"), current("mnt"), std::env::current_dir().unwrap());
    {
        let outer = NetNs::enter().unwrap();
        assert_eq!(devices(), ["lo"], "sysfs is that of the new namespace");
        assert_eq!(current("net"), format!("net:[{}]", outer.inode()));
        assert_eq!(std::env::current_dir().unwrap(), before.3);
        fs::metadata("/sys/kernel/btf/vmlinux").expect("BTF is still there");
        let persistent = TapOptions { persist: true, ..TapOptions::default() };
        let tap = Tap::create_up("vmtap0", persistent).unwrap();
        assert_eq!(devices(), ["lo", "vmtap0"]);
        let child = Command::new("ls").arg("/sys/class/net").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&child.stdout), "lo\nvmtap0\n", "a child process sees the same");
        {
            let _inner = NetNs::enter().unwrap();
            assert_eq!(devices(), ["lo"]);
            assert!(!tap.link().exists());
        }
        assert_eq!(devices(), ["lo", "vmtap0"]);
        drop(tap);
        assert!(!Link::named("vmtap0").exists());
        assert_eq!(devices(), ["lo"]);
    }
    assert_eq!((devices(), current("net"), current("mnt"), std::env::current_dir().unwrap()), before);
}

#[test]
fn a_helper_thread_does_not_keep_the_namespace() {
    let before = current("mnt");
    let netns = NetNs::enter().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let helper = std::thread::spawn(move || {
        std::net::TcpStream::connect(address).unwrap();
        let _ = stopped.recv();
    });
    listener.accept().unwrap();
    drop(netns);
    assert_eq!(current("mnt"), before);
    drop(stop);
    helper.join().unwrap();
}

fn all_kinds(to: &Frame) -> Vec<Vec<u8>> {
    let to = || to.clone();
    vec![
        to().udp4(1),
        to().tcp4(1000),
        to().icmp4(56),
        to().udp6(100),
        to().tcp6(0),
        to().icmp6(8),
        to().udp6_after_hop_by_hop(64),
        to().arp(),
        to().vlan(42).udp4(500),
        to().service_vlan(7).vlan(42).udp4(500),
        to().other(0x88cc, 100),
        to().runt(15),
        to().runt(59),
        to().udp4(1472),
    ]
}

fn bytes(frames: &[Vec<u8>]) -> u64 {
    frames.iter().map(|frame| frame.len() as u64).sum()
}

fn current(namespace: &str) -> String {
    let link = fs::read_link(format!("/proc/thread-self/ns/{namespace}")).expect("read the namespace's link");
    link.to_string_lossy().into_owned()
}

fn names(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("read the directory");
    let name =
        |entry: std::io::Result<fs::DirEntry>| entry.map(|e| e.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = entries.filter_map(|entry| name(entry).ok()).collect();
    names.sort_unstable();
    names
}

#[test]
fn programs_run_in_a_loop_of_the_kernel() {
    let _netns = NetNs::enter().unwrap();
    let tap = Tap::create_up("vmtap0", TapOptions::default()).unwrap();
    let frame = Frame::from_guest().udp4(100);
    for program in [Program::empty(), Program::hash_by_ifindex(&[tap.ifindex()])] {
        let time = program.unwrap().time_of_runs(&frame, tap.ifindex(), 10_000).unwrap();
        assert!(!time.is_zero());
    }
    let error = Program::of_process(std::process::id(), "tap_ingress").unwrap_err();
    assert!(error.to_string().contains("no program tap_ingress"), "{error:#}");
}
