//! Reads the memory of a process.
//!
//! Since Linux 6.2 each CPU has a share of a counter, in memory that only a per-CPU pointer leads to. The distance from such
//! a pointer to the memory of a CPU is the same for all of them. It is measured on a map of this program.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::bpf_map_lookup_percpu_elem,
    macros::map,
    maps::{Array, PerCpuArray},
};
use vm_metrics_common::TaskPages;

use crate::memory::read;
use crate::{POSSIBLE_CPUS, at};

/// User space sets the size before loading.
#[map]
static DISTANCES: Array<u64> = Array::with_max_entries(1, 0);

#[map]
static YARDSTICK: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[inline(always)]
pub fn of(mm: *const c_void) -> Option<TaskPages> {
    let counters =
        [at!(mm_anon), at!(mm_file), at!(mm_shmem), at!(mm_swap)].map(|at| mm.wrapping_byte_add(at));
    let [anon, file, shmem, swap] =
        if at!(counter_per_cpu) == 0 { counters.map(value) } else { sum(counters) };
    Some(TaskPages {
        total: read(mm, at!(mm_total))?,
        hugetlb: read(mm, at!(mm_hugetlb))?,
        anon: anon?,
        file: file?,
        shmem: shmem?,
        swap: swap?,
    })
}

/// The kernel corrects a counter that is below 0 for a moment.
#[inline(always)]
fn value(counter: *const c_void) -> Option<u64> {
    Some(read::<i64>(counter, at!(counter_value))?.max(0) as u64)
}

/// The kernel's exact sum: the common part and the share of each CPU.
#[inline(always)]
fn sum(counters: [*const c_void; 4]) -> [Option<u64>; 4] {
    counters.map(|counter| {
        let mut sum = read::<i64>(counter, at!(counter_value))?;
        let shares = read::<*const c_void>(counter, at!(counter_per_cpu))?;
        for cpu in 0..POSSIBLE_CPUS.load() {
            sum += i64::from(read::<i32>(shares, distance(cpu)?)?);
        }
        Some(sum.max(0) as u64)
    })
}

/// From a per-CPU pointer to the memory of this CPU. Measured once.
#[inline(always)]
fn distance(cpu: u32) -> Option<usize> {
    // SAFETY: a pointer to a whole value. No other read writes to it.
    let known = unsafe { &mut *DISTANCES.get_ptr_mut(cpu)? };
    if *known == 0 {
        let first = 0_u32;
        let map = (&raw const YARDSTICK).cast_mut().cast::<c_void>();
        // SAFETY: the map and a key that it has.
        let there = unsafe { bpf_map_lookup_percpu_elem(map, (&raw const first).cast(), cpu) };
        if there.is_null() {
            return None;
        }
        let pointer = read::<u64>(address(map)? as *const c_void, at!(array_per_cpu))?;
        *known = address(there)?.wrapping_sub(pointer);
    }
    Some(*known as usize)
}

/// A pointer as a number, which the verifier lets be subtracted: through memory.
#[inline(always)]
fn address(pointer: *mut c_void) -> Option<u64> {
    read((&raw const pointer).cast(), 0)
}
