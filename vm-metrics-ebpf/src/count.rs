//! Counts one frame: finds the counters, then adds to them.

use core::mem::{MaybeUninit, offset_of};

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_get_smp_processor_id, programs::TcContext};
use aya_log_ebpf::warn;
use vm_metrics_common::{Counters, DirectionStats, Splits, Traffic};

use crate::{
    frame::{self, Head, Packet},
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
    let Some(counters) = counters(ctx) else { return unknown(ctx.skb.skb) };
    // SAFETY: a pointer to a whole map value; this CPU is its only writer.
    let counters = unsafe { &mut *counters };
    let stats = match direction {
        Direction::Ingress => &mut counters.ingress,
        Direction::Egress => &mut counters.egress,
    };
    // SAFETY: the kernel hands the program a valid context.
    let skb = unsafe { &*ctx.skb.skb };
    let len = frame::len(skb);
    stats.packets += 1;
    stats.bytes += len;

    let on = maps::splits();
    // At egress GSO frames may be more bytes on the device, so the program counts them there in any case.
    if (on.has(Splits::WIRE) || matches!(direction, Direction::Egress)) && skb.gso_size != 0 {
        stats.gso_packets += 1;
        gso(ctx, stats, on, len);
        if matches!(direction, Direction::Egress) {
            add_segmentation(ctx, &mut counters.egress_segmented, len);
        }
        return;
    }
    if on.has(Splits::WIRE) {
        stats.wire_packets += 1;
        stats.wire_bytes += len;
    }
    if on.has(Splits::PROTOCOLS.with(Splits::DESTINATION)) {
        let mut copy = MaybeUninit::uninit();
        let head = Head::of(ctx, &mut copy);
        if on.has(Splits::DESTINATION) {
            destination(stats, head);
        }
        if on.has(Splits::PROTOCOLS) {
            protocols(stats, &head.packet(ctx));
        }
    }
}

#[inline(always)]
fn counters(ctx: &TcContext) -> Option<*mut Counters> {
    // SAFETY: the kernel hands the program a valid context.
    let slot = maps::slot_of(unsafe { (*ctx.skb.skb).ifindex })?;
    // SAFETY: no arguments, no side effects.
    maps::counters_of(slot, unsafe { bpf_get_smp_processor_id() })
}

/// Counts a GSO frame, which is more than one packet on the wire.
// Apart from other frames, so that these do not pay for it.
#[inline(always)]
fn gso(ctx: &TcContext, stats: &mut DirectionStats, on: Splits, len: u64) {
    if !on.has(Splits::ALL) {
        return;
    }
    let mut copy = MaybeUninit::uninit();
    let head = Head::of(ctx, &mut copy);
    if on.has(Splits::DESTINATION) {
        destination(stats, head);
    }
    if !on.has(Splits::PROTOCOLS.with(Splits::WIRE)) {
        return;
    }
    let packet = head.packet(ctx);
    if on.has(Splits::PROTOCOLS) {
        protocols(stats, &packet);
    }
    if on.has(Splits::WIRE) {
        let wire = packet.on_the_wire(ctx, len);
        stats.wire_packets += wire.packets;
        stats.wire_bytes += wire.bytes;
    }
}

#[inline(always)]
fn destination(stats: &mut DirectionStats, head: &Head) {
    if !head.is_to_group() {
        stats.unicast += 1;
    } else if head.is_to_all() {
        stats.broadcast += 1;
    } else {
        stats.multicast += 1;
    }
}

#[inline(always)]
fn protocols(stats: &mut DirectionStats, packet: &Packet) {
    match packet.ethertype {
        frame::ETH_P_IP => stats.ipv4 += 1,
        frame::ETH_P_IPV6 => stats.ipv6 += 1,
        frame::ETH_P_ARP => stats.arp += 1,
        _ => stats.other_l3 += 1,
    }
    if packet.is_ip() {
        let words: *mut u64 = (&raw mut *stats).cast();
        // SAFETY: one of the counters of transports, which are in the order of their indexes (asserted below).
        unsafe { *words.add(FIRST_TRANSPORT + packet.transport()) += 1 };
    }
}

/// The counters of transports as words of the structure: an index instead of branches, which mixed traffic would
/// mispredict.
const FIRST_TRANSPORT: usize = offset_of!(DirectionStats, tcp) / 8;

const _: () = {
    assert!(offset_of!(DirectionStats, udp) == 8 * (FIRST_TRANSPORT + frame::UDP as usize));
    assert!(offset_of!(DirectionStats, icmp) == 8 * (FIRST_TRANSPORT + frame::ICMP as usize));
    assert!(offset_of!(DirectionStats, other_l4) == 8 * (FIRST_TRANSPORT + frame::OTHER as usize));
};

/// Adds the device's count of a GSO frame beyond the frame itself.
#[inline(always)]
fn add_segmentation(ctx: &TcContext, to: &mut Traffic, len: u64) {
    // To the kernel the context is the frame.
    let skb = Skb::new(ctx.skb.skb.cast());
    let Some(delivered) = skb.device().and_then(|dev| skb.delivered(dev)) else { return };
    to.packets += delivered.packets.saturating_sub(1);
    to.bytes += delivered.bytes.saturating_sub(len);
}

/// Logs the 1st, 2nd, 4th, 8th … frame without a slot, which user space prevents.
#[cold]
#[inline(never)]
fn unknown(context: *mut __sk_buff) {
    let seen = maps::count_unknown();
    if seen & seen.wrapping_sub(1) == 0 {
        // SAFETY: the kernel hands the program a valid context.
        let ifindex = unsafe { (*context).ifindex };
        warn!(&TcContext::new(context), "interface {} has no slot: {} frames not counted", ifindex, seen);
    }
}
