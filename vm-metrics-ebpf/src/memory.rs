//! Reads kernel memory.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

/// Reads kernel memory; `None` on failure.
#[inline(always)]
pub fn read<T: Copy>(base: *const c_void, offset: usize) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    let from = base.wrapping_byte_add(offset);
    // SAFETY: the kernel writes no more than the size of the value, and checks the address that it reads from.
    let failed = unsafe { bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from) };
    // SAFETY: on success the value is written; every bit pattern of the integers and pointers that are read is one.
    (failed == 0).then(|| unsafe { value.assume_init() })
}
