//! eBPF counts, device counts and written frames agree for every kind.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use vm_metrics::DirectionStats;
use vm_metrics_testkit::frames::{BROADCAST, Frame, MULTICAST, VNET_HEADER};
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::skip::skip_part;
use vm_metrics_testkit::tap::TapOptions;

use crate::lab::{Lab, ways};

/// A kind of frame: its name, its maker, and the counters that it increments besides the common ones.
type Case = (&'static str, fn(Frame) -> Vec<u8>, [&'static str; 3]);

const CASES: &[Case] = &[
    ("UDP over IPv4", |f| f.udp4(100), ["ipv4", "udp", "unicast"]),
    ("TCP over IPv4", |f| f.tcp4(100), ["ipv4", "tcp", "unicast"]),
    ("TCP without payload", |f| f.tcp4(0), ["ipv4", "tcp", "unicast"]),
    ("ICMP", |f| f.icmp4(56), ["ipv4", "icmp", "unicast"]),
    ("UDP over IPv6", |f| f.udp6(100), ["ipv6", "udp", "unicast"]),
    ("TCP over IPv6", |f| f.tcp6(100), ["ipv6", "tcp", "unicast"]),
    ("ICMPv6", |f| f.icmp6(56), ["ipv6", "icmp", "unicast"]),
    ("UDP behind a hop-by-hop header", |f| f.udp6_after_hop_by_hop(100), ["ipv6", "udp", "unicast"]),
    ("ARP to all", |f| f.to(BROADCAST).arp(), ["arp", "broadcast", "packets"]),
    ("UDP to a group", |f| f.to(MULTICAST).udp4(100), ["ipv4", "udp", "multicast"]),
    ("an unknown EtherType", |f| f.other(0x88b5, 200), ["other_l3", "unicast", "packets"]),
    ("802.1Q", |f| f.vlan(7).udp4(100), ["ipv4", "udp", "unicast"]),
    ("802.1Q with a short ARP", |f| f.vlan(7).arp(), ["arp", "unicast", "packets"]),
    ("802.1ad with 802.1Q inside", |f| f.service_vlan(9).vlan(7).tcp4(100), ["ipv4", "tcp", "unicast"]),
    ("a runt", |f| f.runt(20), ["other_l3", "unicast", "packets"]),
    ("nothing but a header", |f| f.runt(14), ["other_l3", "unicast", "packets"]),
    ("a jumbo frame", |f| f.udp4(8900), ["ipv4", "udp", "unicast"]),
];

/// The counters of a direction, all of which are on.
type DirectionCounters = DirectionStats<Option<u64>>;

/// The counters by name, without zeroes.
type Counts = BTreeMap<String, u64>;

fn added(before: &DirectionCounters, after: &DirectionCounters) -> Counts {
    let counts = |stats: &DirectionCounters| -> Counts {
        serde_json::from_value(serde_json::to_value(stats).unwrap()).unwrap()
    };
    let before = counts(before);
    counts(after)
        .into_iter()
        .map(|(name, count)| (name.clone(), count - before[&name]))
        .filter(|(_, n)| *n > 0)
        .collect()
}

fn expected(case: &Case, frames: u64, len: u64) -> Counts {
    let mut counts: Counts =
        ["packets", "wire_packets"].into_iter().chain(case.2).map(|name| (name.to_owned(), frames)).collect();
    counts.extend(["bytes", "wire_bytes"].map(|name| (name.to_owned(), frames * len)));
    counts
}

/// Repeats each frame a different number of times, so that no two errors cancel out.
fn repeats(index: usize) -> u64 {
    index as u64 % 5 + 1
}

#[test]
fn guest_output_is_counted_as_tx() {
    ways().into_iter().for_each(sends);
}

fn sends(way: &str) {
    let mut lab = Lab::attached_by(way, 1, TapOptions::default());
    let (mut bytes, mut packets) = (0, 0);
    for (index, case) in CASES.iter().enumerate() {
        let (_, before) = lab.tick_one();
        let frame = (case.1)(Frame::from_guest());
        let len = frame.len() as u64;
        for _ in 0..repeats(index) {
            lab.send(&frame);
        }
        bytes += repeats(index) * len;
        packets += repeats(index);

        let (nic, after) = lab.tick_one();
        assert_eq!(added(&before.tx, &after.tx), expected(case, repeats(index), len), "{way}: {}", case.0);
        assert_eq!(added(&before.rx, &after.rx), Counts::new(), "{way}: {}", case.0);
        assert_eq!((nic.tx.bytes, nic.tx.packets), (Some(bytes), Some(packets)), "{way}: {}", case.0);
        assert_eq!((nic.rx.bytes, nic.rx.packets), (Some(0), Some(0)), "{way}: {}", case.0);
        assert_eq!(nic.mismatch_bytes, Some(0), "{way}: {}", case.0);
        let device = lab.taps[0].link().counters().unwrap();
        assert_eq!((device.rx_bytes, device.rx_packets), (bytes, packets), "{way}: {}", case.0);
    }
}

#[test]
fn guest_input_is_counted_as_rx() {
    ways().into_iter().for_each(takes);
}

fn takes(way: &str) {
    let mut lab = Lab::attached_by(way, 1, TapOptions::default());
    lab.taps[0].link().set_mtu(9000).unwrap();
    let (mut bytes, mut packets) = (0, 0);
    for (index, case) in CASES.iter().enumerate() {
        let (_, before) = lab.tick_one();
        let frame = (case.1)(Frame::to_guest());
        let len = frame.len() as u64;
        for _ in 0..repeats(index) {
            lab.offer(&frame);
        }
        lab.drain();
        bytes += repeats(index) * len;
        packets += repeats(index);

        let (nic, after) = lab.tick_one();
        assert_eq!(added(&before.rx, &after.rx), expected(case, repeats(index), len), "{way}: {}", case.0);
        assert_eq!(added(&before.tx, &after.tx), Counts::new(), "{way}: {}", case.0);
        assert_eq!((nic.rx.bytes, nic.rx.packets), (Some(bytes), Some(packets)), "{way}: {}", case.0);
        assert_eq!((nic.tx.bytes, nic.tx.packets), (Some(0), Some(0)), "{way}: {}", case.0);
        let device = lab.taps[0].link().counters().unwrap();
        assert_eq!((device.tx_bytes, device.tx_packets), (bytes, packets), "{way}: {}", case.0);
    }
}

#[test]
fn offered_is_not_yet_received() {
    let mut lab = Lab::new(1, TapOptions::default());
    let frame = Frame::to_guest().udp4(500);
    for _ in 0..3 {
        lab.offer(&frame);
    }
    let (nic, ebpf) = lab.tick_one();
    assert_eq!((nic.rx.packets, ebpf.rx.packets), (Some(0), 3));
    lab.drain();
    let (nic, ebpf) = lab.tick_one();
    assert_eq!((nic.rx.packets, ebpf.rx.packets), (Some(3), 3));
    assert_eq!((nic.rx.bytes, ebpf.rx.bytes), (Some(3 * frame.len() as u64), 3 * frame.len() as u64));
}

#[test]
fn a_gso_frame_counts_as_wire_packets() {
    ways().into_iter().for_each(gso);
}

fn gso(way: &str) {
    const SEGMENT: u16 = 1000;
    let options = TapOptions { vnet_hdr: true, offload: true, ..TapOptions::default() };
    let mut lab = Lab::attached_by(way, 1, options);
    let gso = || Frame::from_guest().gso(SEGMENT);
    let mut cases = vec![
        (4000, 54, gso().tcp4(4000)),
        (4001, 54, gso().tcp4(4001)),
        (60_000, 54, gso().tcp4(60_000)),
        (2500, 74, gso().tcp6(2500)),
        (2500, 58, gso().vlan(7).tcp4(2500)),
    ];
    let udp = gso().udp4(3001);
    match lab.taps[0].write_frame(&udp) {
        Ok(()) => cases.push((3001, 42, udp)),
        Err(error) => skip_part("of UDP", &format!("TAPs take it in segments from Linux 6.2 on: {error:#}")),
    }
    for (payload, headers, frame) in cases {
        let (_, before) = lab.tick_one();
        lab.send(&frame);
        let (nic, after) = lab.tick_one();
        let counted = added(&before.tx, &after.tx);
        let segments = u64::div_ceil(payload, SEGMENT.into());
        assert_eq!(counted["packets"], 1, "{way}: {payload}");
        assert_eq!(counted["gso_packets"], 1, "{way}: {payload}");
        assert_eq!(counted["bytes"], (frame.len() - VNET_HEADER) as u64, "{way}: {payload}");
        assert_eq!(counted["wire_packets"], segments, "{way}: {payload}");
        assert_eq!(counted["wire_bytes"], payload + segments * headers, "{way}: {payload}");
        assert_eq!(nic.tx.bytes, Some(lab.taps[0].link().counters().unwrap().rx_bytes), "{way}: {payload}");
    }
}

#[test]
fn taps_are_counted_apart() {
    let mut lab = Lab::new(3, TapOptions::default());
    let frame = Frame::from_guest().udp4(100);
    for (tap, repeats) in lab.taps.iter().zip([1, 10, 100]) {
        for _ in 0..repeats {
            tap.write_frame(&frame).unwrap();
        }
    }
    let packets: Vec<_> = lab.tick().iter().map(|nic| nic.ebpf.unwrap().tx.packets).collect();
    assert_eq!(packets, [1, 10, 100]);
}

#[test]
fn all_cpus_count() {
    const PER_THREAD: u64 = 20_000;
    let mut lab = Lab::new(1, TapOptions { multi_queue: true, ..TapOptions::default() });
    let frame = Frame::from_guest().udp4(64);
    let threads = std::thread::available_parallelism().unwrap().get() as u64 * 2;
    let queues: Vec<_> = (0..threads).map(|_| lab.taps[0].open_queue().unwrap()).collect();
    std::thread::scope(|scope| {
        for queue in &queues {
            scope.spawn(|| (0..PER_THREAD).for_each(|_| queue.write_frame(&frame).unwrap()));
        }
    });
    let (nic, ebpf) = lab.tick_one();
    assert_eq!(ebpf.tx.packets, threads * PER_THREAD);
    assert_eq!(nic.tx.bytes, Some(threads * PER_THREAD * frame.len() as u64));
}

/// Several CPUs offer frames of several flows, and the kernel spreads these over the queues.
#[test]
fn all_queues_count() {
    const PER_THREAD: u64 = 20_000;
    let mut lab = Lab::new(1, TapOptions { multi_queue: true, ..TapOptions::default() });
    let threads = std::thread::available_parallelism().unwrap().get() * 2;
    let queues: Vec<_> = (1..threads).map(|_| lab.taps[0].open_queue().unwrap()).collect();
    let senders: Vec<_> = (0..threads).map(|_| PacketSocket::bind("vmt0").unwrap()).collect();
    let taken: Vec<_> = (0..threads).map(|_| AtomicU64::new(0)).collect();
    let (tap, sending) = (&lab.taps[0], &AtomicUsize::new(threads));
    let take_all = |at: usize| {
        let mut buffer = [0; 2048];
        let read = |buffer: &mut [u8]| match at {
            0 => tap.read_frame(buffer),
            at => queues[at - 1].read_frame(buffer),
        };
        while read(&mut buffer).unwrap().is_some() {
            taken[at].fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for (at, sender) in senders.iter().enumerate() {
            let take_all = &take_all;
            scope.spawn(move || {
                let mut frame = Frame::to_guest().udp4(64);
                // The source port.
                frame[34..36].copy_from_slice(&(40_000 + at as u16).to_be_bytes());
                for _ in 0..PER_THREAD {
                    // A full queue refuses the frame, which still counts as offered.
                    let _ = sender.send(&frame);
                }
                sending.fetch_sub(1, Ordering::Relaxed);
            });
            scope.spawn(move || {
                while sending.load(Ordering::Relaxed) > 0 {
                    take_all(at);
                }
            });
        }
    });
    (0..threads).for_each(take_all);
    let taken: Vec<_> = taken.into_iter().map(AtomicU64::into_inner).collect();
    let all = threads as u64 * PER_THREAD;
    let (nic, ebpf) = lab.tick_one();
    assert_eq!((ebpf.rx.udp, ebpf.offered.unwrap().packets), (Some(all), all));
    assert_eq!(nic.rx.packets, Some(taken.iter().sum()));
    assert!(taken.iter().filter(|queue| **queue > 0).count() > 1, "{taken:?}");
    let dropped_qdisc = ebpf.dropped_qdisc.map_or(0, |dropped| dropped.packets);
    let gone = nic.rx.packets.unwrap() + nic.rx.dropped.unwrap() + dropped_qdisc;
    assert_eq!(gone + nic.rx_backlog_packets.unwrap(), all, "{taken:?}");
    if ebpf.dropped_qdisc.is_some() {
        assert_eq!(nic.rx_backlog_packets, Some(0), "{taken:?}");
    }
}

/// The kernel copies each broadcast to the host's own sockets, and the copy passes the same device.
#[test]
fn host_broadcasts_are_not_guest_tx() {
    for way in ways() {
        let mut lab = Lab::attached_by(way, 1, TapOptions::default());
        let address = ["address", "add", "192.0.2.1/24", "broadcast", "192.0.2.255", "dev", "vmt0"];
        assert!(Command::new("ip").args(address).status().unwrap().success());
        let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
        socket.set_broadcast(true).unwrap();
        let group = Ipv4Addr::new(224, 0, 0, 251);
        socket.join_multicast_v4(&group, &Ipv4Addr::new(192, 0, 2, 1)).unwrap();
        let (before, ..) = lab.tick_one();
        for address in [Ipv4Addr::new(192, 0, 2, 255), group] {
            for _ in 0..20 {
                socket.send_to(&[0; 100], (address, 9)).unwrap();
            }
        }
        lab.send(&Frame::from_guest().udp4(100));
        let (after, ebpf) = lab.tick_one();
        assert_eq!(after.tx.packets.unwrap() - before.tx.packets.unwrap(), 1, "{way}: {after:?}");
        assert!(ebpf.offered.unwrap().packets >= 40, "{way}: {ebpf:?}");
        assert_eq!(after.mismatch_bytes, Some(0), "{way}");
    }
}
