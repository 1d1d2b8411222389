//! Maps an array of the programs into this process. Reading it needs no system call.

use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Pod;
use aya::maps::MapData;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::error::LoadError;

/// Entries of `T`, which is made of whole words.
pub(crate) struct MappedArray<T> {
    words: NonNull<AtomicU64>,
    entries: u32,
    entry: PhantomData<T>,
}

// SAFETY: the mapping is memory of the process, not of a thread, and is only ever read, atomically.
unsafe impl<T> Send for MappedArray<T> {}

impl<T: Pod> MappedArray<T> {
    const WORDS: usize = {
        assert!(size_of::<T>().is_multiple_of(size_of::<u64>()));
        size_of::<T>() / size_of::<u64>()
    };

    /// `map` is an array of `T`.
    pub(crate) fn new(map: &MapData) -> Result<Self, LoadError> {
        // A pinned map keeps the size that it was made with.
        let entries = map.info()?.max_entries();
        let fd = map.fd().as_fd();
        let len_bytes = entries as usize * size_of::<T>();
        // SAFETY: a new read-only mapping at an address of the kernel's choice, no longer than the map says it is.
        let address = unsafe { mmap(ptr::null_mut(), len_bytes, ProtFlags::READ, MapFlags::SHARED, fd, 0) };
        let address = address.map_err(|errno| LoadError::Mmap(io::Error::from(errno)))?;
        let words = NonNull::new(address.cast())
            .ok_or_else(|| LoadError::Mmap(io::ErrorKind::AddrNotAvailable.into()))?;
        Ok(Self { words, entries, entry: PhantomData })
    }

    pub(crate) fn entries(&self) -> u32 {
        self.entries
    }

    /// An entry. Each word is whole; two of them may be from before and after a write.
    pub(crate) fn read(&self, entry: u32) -> T {
        self.sum(entry, 1)
    }

    /// The words of `count` entries, added up.
    pub(crate) fn sum(&self, first: u32, count: u32) -> T {
        let is_within = first.checked_add(count).is_some_and(|end| end <= self.entries);
        assert!(is_within, "{count} entries at {first} of {}", self.entries);
        // SAFETY: the entries are within the mapping (asserted), which lives as long as `self`. The kernel writes these
        // words from other CPUs; each is aligned and read by one atomic load.
        let words = unsafe {
            let first = self.words.add(first as usize * Self::WORDS);
            slice::from_raw_parts(first.as_ptr(), count as usize * Self::WORDS)
        };
        let mut sums = MaybeUninit::<T>::zeroed();
        for (at, word) in words.iter().enumerate() {
            // SAFETY: within the value, of which each bit pattern is one (`Pod`). It may be less aligned than a word.
            unsafe {
                let sum = sums.as_mut_ptr().cast::<u64>().add(at % Self::WORDS);
                sum.write_unaligned(sum.read_unaligned().wrapping_add(word.load(Ordering::Relaxed)));
            }
        }
        // SAFETY: zeroes are one of its bit patterns, and so is whatever the words are.
        unsafe { sums.assume_init() }
    }
}

impl<T> Drop for MappedArray<T> {
    fn drop(&mut self) {
        let len_bytes = self.entries as usize * size_of::<T>();
        // SAFETY: the mapping was made in `new` with this length, and no reference into it outlives `self`.
        if let Err(errno) = unsafe { munmap(self.words.as_ptr().cast::<c_void>(), len_bytes) } {
            tracing::warn!("cannot unmap an array of the programs: {errno}");
        }
    }
}
