//! The programs on the TAPs, which count frames and pass every one.
//!
//! `main.rs` has the entry points, `maps.rs` the maps, `count.rs` the one hot function, `frame.rs` reads headers,
//! `skb.rs` the kernel's structures. `drops.rs` and `tasks.rs` are objects of their own.
//!
//! Each function that a program calls is `#[cold]`. So all are in one section: aya identifies a function by its offset
//! there, and confuses two of different sections. On many machines a call costs as much as all else.

#![no_std]
#![no_main]

mod count;
mod frame;
mod maps;
mod memory;
mod object;
mod skb;

use aya_ebpf::{bindings::tcx_action_base::TCX_NEXT, macros::classifier, programs::TcContext};

/// The guest's output: a frame written to the TAP enters the host here. So does the host's own copy of each broadcast
/// and multicast to the guest, which does not count.
#[classifier]
pub fn tap_ingress(ctx: TcContext) -> i32 {
    // SAFETY: the kernel hands the program a valid context.
    let packet_type = unsafe { (*ctx.skb.skb).pkt_type };
    if packet_type != PACKET_LOOPBACK {
        count::frame(&ctx, count::Direction::Ingress);
    }
    CONTINUE
}

/// The guest's input: a frame on its way into the TAP's ring.
#[classifier]
pub fn tap_egress(ctx: TcContext) -> i32 {
    count::frame(&ctx, count::Direction::Egress);
    CONTINUE
}

/// Packet type of `linux/if_packet.h` for the kernel's copy for the host's own sockets.
const PACKET_LOOPBACK: u32 = 5;

/// "Continue with the next program". A clsact filter returns the same number as `TC_ACT_UNSPEC`. `TC_ACT_OK` would end
/// the chain for foreign programs.
const CONTINUE: i32 = TCX_NEXT;
