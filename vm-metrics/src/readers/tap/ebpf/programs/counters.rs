//! The counters, mapped into this process: reading them is plain loads, no system call.

use std::ffi::c_void;
use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{Array, Map, MapData};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vm_metrics_common::Counters;

use super::super::error::LoadError;

const WORDS: usize = size_of::<Counters>() / size_of::<u64>();

/// The map `COUNTERS`: for each slot one entry per possible CPU.
pub(crate) struct CounterMap {
    map: Array<MapData, Counters>,
    words: NonNull<AtomicU64>,
    len_bytes: usize,
    slots: u32,
    cpus: u32,
}

// SAFETY: the mapping is memory of the process, not of a thread, and is only ever read, atomically.
unsafe impl Send for CounterMap {}

impl CounterMap {
    pub(crate) fn new(map: Map, cpus: u32) -> Result<Self, LoadError> {
        let Map::Array(data) = &map else { return Err(LoadError::NoArray) };
        // A pinned map keeps the size that it was made with.
        let slots = data.info()?.max_entries() / cpus;
        let len_bytes = slots as usize * cpus as usize * size_of::<Counters>();
        // SAFETY: a new read-only mapping at an address of the kernel's choice, no longer than the map says it is.
        let address = unsafe {
            let fd = data.fd().as_fd();
            mmap(ptr::null_mut(), len_bytes, ProtFlags::READ, MapFlags::SHARED, fd, 0)
        };
        let address = address.map_err(|errno| LoadError::Mmap(io::Error::from(errno)))?;
        let words = NonNull::new(address.cast())
            .ok_or_else(|| LoadError::Mmap(io::ErrorKind::AddrNotAvailable.into()))?;
        Ok(Self { map: Array::try_from(map)?, words, len_bytes, slots, cpus })
    }

    pub(crate) fn slots(&self) -> u32 {
        self.slots
    }

    /// The counters of a slot, all CPUs added up. Each number is whole; two of them may be a frame apart.
    pub(crate) fn read(&self, slot: u32) -> Counters {
        assert!(slot < self.slots, "slot {slot} of {}", self.slots);
        let entry_words = self.cpus as usize * WORDS;
        // SAFETY: the slot is within the mapping (asserted), which lives as long as `self`. The kernel writes these
        // words from other CPUs; each is aligned and read by one atomic load.
        let words = unsafe {
            let first = self.words.add(slot as usize * entry_words);
            std::slice::from_raw_parts(first.as_ptr(), entry_words)
        };
        let mut sums = [0_u64; WORDS];
        for cpu in words.chunks_exact(WORDS) {
            for (sum, word) in sums.iter_mut().zip(cpu) {
                *sum = sum.wrapping_add(word.load(Ordering::Relaxed));
            }
        }
        // SAFETY: `Counters` is repr(C), made of `WORDS` u64 without padding (asserted in vm-metrics-common).
        unsafe { std::mem::transmute::<[u64; WORDS], Counters>(sums) }
    }

    /// Sets a slot to zero, before an interface gets it; no program writes to it then.
    pub(crate) fn clear(&mut self, slot: u32) -> Result<(), LoadError> {
        for cpu in 0..self.cpus {
            self.map.set(slot * self.cpus + cpu, Counters::default(), 0)?;
        }
        Ok(())
    }
}

impl Drop for CounterMap {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this length, and no reference into it outlives `self`.
        if let Err(errno) = unsafe { munmap(self.words.as_ptr().cast::<c_void>(), self.len_bytes) } {
            tracing::warn!("cannot unmap the counters: {errno}");
        }
    }
}
