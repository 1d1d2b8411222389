//! What became of the frames for the guest: offered = delivered + dropped + backlog, to the packet and the byte.

mod filter;
mod gso;
mod restart;
mod ring;

use std::iter;

use vm_metrics::model::{NicStats, Traffic};
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::skip::skip_part;

use crate::lab::Lab;

/// Frames of many sizes, with and without tags, from the shortest to the longest that the device takes.
fn frames() -> impl Iterator<Item = Vec<u8>> {
    let payloads = (0..1456).step_by(97).cycle().enumerate();
    payloads.map(|(n, payload)| match n % 4 {
        0 => Frame::to_guest().udp4(payload),
        1 => Frame::to_guest().vlan(7).tcp4(payload),
        2 => Frame::to_guest().udp6(payload),
        _ => Frame::to_guest().runt(14 + payload % 50),
    })
}

fn bytes(frames: &[Vec<u8>]) -> u64 {
    frames.iter().map(|frame| frame.len() as u64).sum()
}

/// Sends a frame through the device's queueing discipline, which may drop it and say so.
fn offer(to: &PacketSocket, frame: &[u8]) {
    let _ = to.send(frame);
}

/// The guest takes so many frames, or all there are.
fn take(lab: &Lab, frames: usize) -> Vec<usize> {
    let mut buffer = vec![0; 128 << 10];
    iter::from_fn(|| lab.taps[0].read_frame(&mut buffer).unwrap()).take(frames).collect()
}

/// What a tick says of the frames for the guest.
#[derive(Clone, Copy, Debug)]
struct Offered {
    packets: Option<u64>,
    bytes: Option<u64>,
    dropped_ring_full: Option<Traffic>,
    dropped_filter: Option<Traffic>,
    dropped_qdisc: Option<Traffic>,
    backlog_packets: Option<u64>,
    backlog_bytes: Option<u64>,
}

fn look(lab: &mut Lab) -> (NicStats, Offered) {
    let (nic, ebpf) = lab.tick_one();
    let offered = Offered {
        packets: ebpf.offered.map(|offered| offered.packets),
        bytes: ebpf.offered.map(|offered| offered.bytes),
        dropped_ring_full: ebpf.dropped_ring_full,
        dropped_filter: ebpf.dropped_filter,
        dropped_qdisc: ebpf.dropped_qdisc,
        backlog_packets: nic.rx_backlog_packets,
        backlog_bytes: nic.rx_backlog_bytes,
    };
    (nic, offered)
}

/// The equation at a quiet moment, between numbers that are each measured: offered, delivered, dropped, and the backlog
/// that the test knows.
fn assert_balance(nic: &NicStats, offered: &Offered, backlog: (u64, u64), what: &str) {
    let ring = offered.dropped_ring_full.unwrap();
    let filter = offered.dropped_filter.unwrap();
    let qdisc = offered.dropped_qdisc.unwrap();
    let rx = nic.rx;
    assert_eq!(rx.dropped, Some(ring.packets + filter.packets), "{what}: the device and the tracepoint");
    assert_eq!(nic.rx_dropped_by_device, Some(0), "{what}: every reason is known");
    let packets = rx.packets.unwrap() + ring.packets + filter.packets + qdisc.packets + backlog.0;
    assert_eq!(offered.packets, Some(packets), "{what}: {nic:?}");
    let bytes = rx.bytes.unwrap() + ring.bytes + filter.bytes + qdisc.bytes + backlog.1;
    assert_eq!(offered.bytes, Some(bytes), "{what}: {nic:?}");
    assert_eq!(
        (offered.backlog_packets, offered.backlog_bytes),
        (Some(backlog.0), Some(backlog.1)),
        "{what}"
    );
}

/// False on a kernel that does not tell why it drops a frame, which is then said.
fn sees_drops(offered: &Offered) -> bool {
    if offered.dropped_ring_full.is_none() {
        skip_part("dropped bytes", "the kernel gives reasons for drops from Linux 5.18 on");
    }
    offered.dropped_ring_full.is_some()
}
