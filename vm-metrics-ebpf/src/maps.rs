//! The maps, which user space sizes and fills.

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap},
};
use vm_metrics_common::{Counters, MAX_COLLISIONS, Splits, TABLE_SIZE, TableEntry};

/// Stride of `COUNTERS`; user space sets it before loading.
#[unsafe(no_mangle)]
static POSSIBLE_CPUS: Global<u32> = Global::new(1);

/// Mask of an index in `TABLE`; user space sets it before loading.
#[unsafe(no_mangle)]
static TABLE_MASK: Global<u32> = Global::new(TABLE_SIZE - 1);

/// The counters that are on; user space sets it before loading.
#[unsafe(no_mangle)]
static SPLITS: Global<Splits> = Global::new(Splits::ALL);

/// Indexed by `slot * POSSIBLE_CPUS + cpu`; user space sets the size before loading.
#[map]
static COUNTERS: Array<Counters> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static TABLE: Array<TableEntry> = Array::with_max_entries(TABLE_SIZE, 0);

#[map]
static COLLISIONS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_COLLISIONS, 0);

#[map]
static UNKNOWN: Array<u64> = Array::with_max_entries(1, 0);

/// Returns the counters that are on. To the verifier it is a constant, so it removes the code of the others.
#[inline(always)]
pub fn splits() -> Splits {
    SPLITS.load()
}

/// Returns the slot of an interface, or `None` when user space gave it none.
#[inline(always)]
pub fn slot_of(ifindex: u32) -> Option<u32> {
    let entry = TABLE.get(ifindex & TABLE_MASK.load())?;
    if entry.ifindex == ifindex {
        return Some(entry.slot);
    }
    let slot = COLLISIONS.get_ptr(ifindex)?;
    // SAFETY: the kernel returned a pointer to a whole value, valid until the program ends.
    Some(unsafe { *slot })
}

/// Returns this CPU's counters of a slot. No other CPU writes to them, and tc runs with bottom halves off.
#[inline(always)]
pub fn counters_of(slot: u32, cpu: u32) -> Option<*mut Counters> {
    let cpus = POSSIBLE_CPUS.load();
    if cpu >= cpus {
        // With holes among the possible CPUs, the last would count in another TAP's slot.
        return None;
    }
    COUNTERS.get_ptr_mut(slot.wrapping_mul(cpus).wrapping_add(cpu))
}

/// Counts a frame on an interface without a slot, and returns the count before.
#[inline(always)]
pub fn count_unknown() -> u64 {
    match UNKNOWN.get_ptr_mut(0) {
        // SAFETY: a valid pointer to a whole value. Two CPUs may lose a count to each other: the number only paces a log line.
        Some(unknown) => unsafe {
            *unknown += 1;
            *unknown
        },
        None => 0,
    }
}
