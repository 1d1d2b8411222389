//! Reads the memory of a process.
//!
//! Since Linux 6.2 each CPU has a share of a counter, in memory that only a per-CPU pointer leads to. The distance from such
//! a pointer to the memory of a CPU is the same for all of them. It is measured on a map of this program, for one CPU at each of the first threads.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_map_lookup_percpu_elem, bpf_probe_read_kernel},
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
    let mut values = [0; 4];
    for (value, counter) in values.iter_mut().zip(counters) {
        *value = read::<i64>(counter, at!(counter_value))?;
    }
    if at!(counter_per_cpu) != 0 {
        add_shares(&mut values, counters)?;
    }
    // The kernel, too, corrects a counter that is below 0 for a moment.
    let [anon, file, shmem, swap] = values.map(|value| value.max(0) as u64);
    Some(TaskPages {
        total: read(mm, at!(mm_total))?,
        hugetlb: read(mm, at!(mm_hugetlb))?,
        anon,
        file,
        shmem,
        swap,
    })
}

/// Makes the exact sums of the kernel: the common part and the share of each CPU.
#[inline(always)]
fn add_shares(values: &mut [i64; 4], counters: [*const c_void; 4]) -> Option<()> {
    let mut shares = counters;
    for share in &mut shares {
        *share = read(*share, at!(counter_per_cpu))?;
    }
    // The verifier follows each branch of each round, and hosts have hundreds of CPUs: a failure is noted, not returned.
    let mut failed = 0;
    for cpu in 0..POSSIBLE_CPUS.load() {
        // SAFETY: a pointer to a whole value, valid until the program ends. Without a distance the read fails.
        let distance = unsafe { *DISTANCES.get_ptr(cpu)? } as usize;
        for (value, share) in values.iter_mut().zip(shares) {
            *value += i64::from(read_or_zero(share, distance, &mut failed));
        }
    }
    (failed == 0).then_some(())
}

#[inline(always)]
fn read_or_zero(base: *const c_void, offset: usize, failed: &mut i64) -> i32 {
    let mut value = 0_i32;
    // SAFETY: the kernel writes four bytes, which are zero on failure, and checks the address that it reads from.
    *failed |= unsafe {
        bpf_probe_read_kernel(
            (&raw mut value).cast(),
            size_of::<i32>() as u32,
            base.wrapping_byte_add(offset),
        )
    } as i64;
    value
}

/// Measures the distance from a per-CPU pointer to the memory of this CPU.
#[inline(always)]
pub fn measure(cpu: u32) -> Option<()> {
    if at!(counter_per_cpu) == 0 {
        return Some(());
    }
    // SAFETY: a pointer to a whole value. No other read writes to it.
    let distance = unsafe { &mut *DISTANCES.get_ptr_mut(cpu)? };
    let first = 0_u32;
    let map = (&raw const YARDSTICK).cast_mut().cast::<c_void>();
    // SAFETY: the map and a key that it has.
    let there = unsafe { bpf_map_lookup_percpu_elem(map, (&raw const first).cast(), cpu) };
    if there.is_null() {
        return None;
    }
    let pointer = read::<u64>(address(map)? as *const c_void, at!(array_per_cpu))?;
    *distance = address(there)?.wrapping_sub(pointer);
    Some(())
}

/// A pointer as a number, which the verifier lets be subtracted: through memory.
#[inline(always)]
fn address(pointer: *mut c_void) -> Option<u64> {
    read((&raw const pointer).cast(), 0)
}
