//! The programs on the TAPs: they count, and let every frame go on as if they were not there.
//!
//! `main.rs` has the maps and the entry points, `count.rs` the one hot function, `frame.rs` reads headers,
//! `skb.rs` the kernel's structures. `drops.rs` is an object of its own.

#![no_std]
#![no_main]

mod count;
mod frame;
mod maps;
mod skb;

use aya_ebpf::{bindings::tcx_action_base::TCX_NEXT, macros::classifier, programs::TcContext};

/// What the guest sends: a frame written to the TAP enters the host here. So does the host's own copy of each broadcast and
/// multicast that it sends to the guest: that is not the guest's.
#[classifier]
pub fn tap_ingress(ctx: TcContext) -> i32 {
    // SAFETY: the kernel hands the program a valid context.
    let packet_type = unsafe { (*ctx.skb.skb).pkt_type };
    if packet_type != PACKET_LOOPBACK {
        count::frame(&ctx, count::Direction::Ingress);
    }
    CONTINUE
}

/// What the host offers to the guest: a frame on its way into the TAP's ring.
#[classifier]
pub fn tap_egress(ctx: TcContext) -> i32 {
    count::frame(&ctx, count::Direction::Egress);
    CONTINUE
}

/// Of `linux/if_packet.h`: the kernel has made this copy for the host's own sockets.
const PACKET_LOOPBACK: u32 = 5;

/// "Go on with the next program". As a clsact filter's result the same number is `TC_ACT_UNSPEC`. Never `TC_ACT_OK`: it would end the chain for the programs of others.
const CONTINUE: i32 = TCX_NEXT;

/// Loops, so that the verifier refuses a program in which a panic can be reached.
// A check of the whole workspace is for the host, where `std` has one.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
