//! The program on the tracepoint `kfree_skb`: frames for a guest that were dropped on their way to it, in bytes.
//!
//! An object of its own: one program serves all network namespaces, and a kernel that refuses tracing still takes the
//! programs on the TAPs. It runs at every drop on the host, so the reason, which is a number in a register, comes first.

#![no_std]
#![no_main]

#[macro_use]
mod skb;

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::{btf_tracepoint, map},
    maps::PerCpuHashMap,
    programs::BtfTracePointContext,
};
use skb::{Skb, read};
use vm_metrics_common::{DropCounts, DropKey, Reasons, Traffic};

/// What each reason of this kernel means; set by user space before loading.
#[unsafe(no_mangle)]
static REASONS: Reasons = Reasons { qdisc: 0, core: [Reasons::OTHER; Reasons::CORE] };

/// The subsystem that a reason is of stands above it; 0 is the core.
const SUBSYSTEM_SHIFT: u32 = 16;

/// The size is set by user space before loading, for more than there ever are: only user space makes entries, and only
/// they take memory.
#[map]
static DROPS: PerCpuHashMap<DropKey, DropCounts> = PerCpuHashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[btf_tracepoint(function = "kfree_skb")]
pub fn frame_dropped(ctx: BtfTracePointContext) -> i32 {
    let meaning = meaning(ctx.arg::<u32>(2));
    if meaning != Reasons::OTHER {
        count(Skb::new(ctx.arg::<*const c_void>(0)), meaning);
    }
    0
}

#[inline(always)]
fn meaning(reason: u32) -> u8 {
    // SAFETY: a valid, aligned address of a static; volatile, because the compiler must not believe its zeroes.
    let qdisc = unsafe { ptr::read_volatile(&raw const REASONS.qdisc) };
    if qdisc != 0 && reason >> SUBSYSTEM_SHIFT == qdisc {
        return Reasons::QDISC;
    }
    let reason = reason as usize;
    if reason >= Reasons::CORE {
        return Reasons::OTHER;
    }
    // SAFETY: as above, within the array.
    unsafe { ptr::read_volatile((&raw const REASONS.core).cast::<u8>().add(reason)) }
}

#[inline(always)]
fn count(skb: Skb, meaning: u8) -> Option<()> {
    let dev = skb.device()?;
    let net = read::<*const c_void>(dev, at!(dev_net))?;
    let key = DropKey { netns: read(net, at!(net_inode))?, ifindex: read(dev, at!(dev_ifindex))? };
    // SAFETY: a pointer to this CPU's value. The kernel does not start the program again on a CPU where it runs.
    let counts = unsafe { &mut *DROPS.get_ptr_mut(key)? };
    match meaning {
        // The device has the frame cut already, if it had to be.
        Reasons::RING_FULL => add(&mut counts.ring_full, skb.whole()?),
        Reasons::FILTER => add(&mut counts.filter, skb.whole()?),
        _ => add(&mut counts.qdisc, skb.delivered(dev)?),
    }
    Some(())
}

#[inline(always)]
fn add(to: &mut Traffic, dropped: Traffic) {
    to.packets += dropped.packets;
    to.bytes += dropped.bytes;
}

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
