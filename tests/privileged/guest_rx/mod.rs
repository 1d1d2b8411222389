//! Frames for the guest balance: offered = delivered + dropped + backlog.

mod filter;
mod gso;
mod restart;
mod ring;

use std::iter;

use vm_metrics::{NicStats, Traffic};
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::skip::skip_part;

use crate::lab::Lab;

/// Returns frames of many sizes, with and without tags, from the shortest to the longest.
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

/// Sends a frame through the device's qdisc, which may drop it with an error.
fn offer(to: &PacketSocket, frame: &[u8]) {
    let _ = to.send(frame);
}

/// Reads so many frames as the guest, or all.
fn take(lab: &Lab, frames: usize) -> Vec<usize> {
    let mut buffer = vec![0; 128 << 10];
    iter::from_fn(|| lab.taps[0].read_frame(&mut buffer).unwrap()).take(frames).collect()
}

/// The published numbers of one tick about frames for the guest.
#[derive(Clone, Copy, Debug)]
struct GuestRx {
    packets: Option<u64>,
    bytes: Option<u64>,
    dropped_ring_full: Option<Traffic>,
    dropped_filter: Option<Traffic>,
    dropped_qdisc: Option<Traffic>,
    backlog_packets: Option<u64>,
    backlog_bytes: Option<u64>,
}

fn look(lab: &mut Lab) -> (NicStats, GuestRx) {
    let (nic, ebpf) = lab.tick_one();
    let offered = GuestRx {
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

/// Checks the balance at a quiet moment. Each number is measured by itself, and the test knows the backlog.
fn assert_balance(nic: &NicStats, offered: &GuestRx, backlog: (u64, u64), what: &str) {
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

/// Returns false, with a skip message, on a kernel without drop reasons.
fn sees_drops(offered: &GuestRx) -> bool {
    if offered.dropped_ring_full.is_none() {
        skip_part("dropped bytes", "the kernel gives reasons for drops from Linux 5.18 on");
    }
    offered.dropped_ring_full.is_some()
}
