//! Counts one frame: finds the counters, then adds to them.

use aya_ebpf::{EbpfContext, helpers::bpf_get_smp_processor_id, programs::TcContext};
use aya_log_ebpf::warn;
use vm_metrics_common::{DirectionStats, Traffic};

use crate::{
    frame::{Cast, Frame, L3, L4},
    maps,
    skb::Skb,
};

#[derive(Clone, Copy)]
pub enum Direction {
    Ingress,
    Egress,
}

#[inline(always)]
pub fn frame(ctx: &TcContext, direction: Direction) {
    // SAFETY: the kernel hands the program a valid context.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    let Some(slot) = maps::slot_of(ifindex) else {
        return unknown(ctx, ifindex);
    };
    // SAFETY: no arguments, no side effects.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(counters) = maps::counters_of(slot, cpu) else {
        return unknown(ctx, ifindex);
    };
    // SAFETY: a pointer to a whole map value; this CPU is its only writer.
    let counters = unsafe { &mut *counters };
    let frame = Frame::parse(ctx);
    match direction {
        Direction::Ingress => add(&mut counters.ingress, &frame),
        Direction::Egress => {
            add(&mut counters.egress, &frame);
            if frame.gso {
                add_segmentation(&mut counters.egress_segmented, ctx, &frame);
            }
        }
    }
}

/// Adds the device's count of a GSO frame beyond the frame itself.
#[inline(always)]
fn add_segmentation(to: &mut Traffic, ctx: &TcContext, frame: &Frame) {
    // To the kernel the context is the frame.
    let skb = Skb::new(ctx.as_ptr());
    let Some(delivered) = skb.device().and_then(|dev| skb.delivered(dev)) else { return };
    to.packets += delivered.packets.saturating_sub(1);
    to.bytes += delivered.bytes.saturating_sub(u64::from(frame.len));
}

#[inline(always)]
fn add(counters: &mut DirectionStats, frame: &Frame) {
    // Each counter by its name: a new one does not compile without its place here, and warns without its use.
    let DirectionStats {
        packets,
        bytes,
        wire_packets,
        wire_bytes,
        ipv4,
        ipv6,
        arp,
        other_l3,
        tcp,
        udp,
        icmp,
        other_l4,
        unicast,
        multicast,
        broadcast,
        gso_packets,
    } = counters;
    *packets += 1;
    *bytes += u64::from(frame.len);
    *wire_packets += u64::from(frame.wire_packets);
    *wire_bytes += frame.wire_bytes;
    *gso_packets += u64::from(frame.gso);
    match frame.cast {
        Cast::Unicast => *unicast += 1,
        Cast::Multicast => *multicast += 1,
        Cast::Broadcast => *broadcast += 1,
    }
    match frame.l3 {
        L3::Ipv4 => *ipv4 += 1,
        L3::Ipv6 => *ipv6 += 1,
        L3::Arp => *arp += 1,
        L3::Other => *other_l3 += 1,
    }
    match frame.l4 {
        Some(L4::Tcp) => *tcp += 1,
        Some(L4::Udp) => *udp += 1,
        Some(L4::Icmp) => *icmp += 1,
        Some(L4::Other) => *other_l4 += 1,
        None => {}
    }
}

/// Logs the 1st, 2nd, 4th, 8th … frame without a slot, which user space prevents.
#[cold]
#[inline(never)]
fn unknown(ctx: &TcContext, ifindex: u32) {
    let seen = maps::count_unknown();
    if seen & seen.wrapping_sub(1) == 0 {
        warn!(ctx, "interface {} has no slot: {} frames not counted", ifindex, seen);
    }
}
