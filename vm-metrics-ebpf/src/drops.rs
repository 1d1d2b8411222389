//! Counts drops of guest frames at the tracepoint `kfree_skb`.
//!
//! This is a separate object. One program serves all network namespaces, and a kernel without tracing still loads the
//! programs on the TAPs. It runs at every drop on the host, so it checks the reason first, a number in a register.

#![no_std]
#![no_main]

mod memory;
mod object;
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
use memory::read;
use skb::Skb;
use vm_metrics_common::{DropCounts, DropKey, Reasons, Traffic};

/// The meaning of each reason of this kernel; user space sets it before loading.
#[unsafe(no_mangle)]
static REASONS: Reasons = Reasons { qdisc: 0, core: [Reasons::OTHER; Reasons::CORE] };

/// The bits above this shift are the subsystem of a reason; 0 is the core.
const SUBSYSTEM_SHIFT: u32 = 16;

/// User space sets the size before loading, to more than ever needed. Only user space creates entries, and only entries
/// take memory.
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
        // The device already segmented the frame, if it had to.
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
