//! One thread of a hypervisor: its file, its vCPU, and its times so far.

use std::os::fd::OwnedFd;
use std::path::Path;

use super::vcpu_name::vcpu;
use crate::model::{Hypervisor, SchedTimes};
use crate::procfs::parse_stat;
use crate::readers::cached_file::{Buffer, CachedFile};

/// A thread gives itself its name as the first thing it does. On a busy host that may be a while after its start.
pub(super) const LOOKS: u8 = 10;

/// Sums that the kernel has for living threads only.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    pub(super) wait_nsec: u64,
    pub(super) switches: u64,
}

#[derive(Debug)]
pub(super) struct Thread {
    pub(super) file: CachedFile,
    pub(super) vcpu: Option<u32>,
    /// Start of a vCPU's thread, in clock ticks since boot.
    pub(super) start_ticks: Option<u64>,
    pub(super) looks_left: u8,
    /// The part of its counts that is in the sums, or from before the first reading; `None` until it is read.
    seen: Option<Sums>,
}

impl Thread {
    pub(super) fn new(file: CachedFile, seen: Option<Sums>) -> Self {
        Self { file, vcpu: None, start_ticks: None, looks_left: LOOKS, seen }
    }

    /// Finds out by its name whether it is a vCPU.
    pub(super) fn find_vcpu(
        &mut self,
        directory: &OwnedFd,
        path: &Path,
        tid: u32,
        hypervisor: Hypervisor,
        buffer: &mut Buffer,
    ) {
        self.vcpu = name(directory, path, tid, buffer).and_then(|name| vcpu(hypervisor, &name));
        self.start_ticks = self.vcpu.and_then(|_| start_ticks(directory, path, tid, buffer));
    }

    /// Adds the increase since the last call.
    pub(super) fn add_to(&mut self, sums: &mut Sums, times: SchedTimes) {
        let SchedTimes { wait_nsec, switches, .. } = times;
        let seen = self.seen.get_or_insert(Sums { wait_nsec, switches });
        let add = |sum: &mut u64, seen: &mut u64, now: u64| {
            let more = now.saturating_sub(*seen);
            *seen += more;
            *sum += more;
        };
        add(&mut sums.wait_nsec, &mut seen.wait_nsec, wait_nsec);
        add(&mut sums.switches, &mut seen.switches, switches);
    }
}

/// The name of a thread; `None` if it is unreadable, which the next tick may change.
fn name(directory: &OwnedFd, path: &Path, tid: u32, buffer: &mut Buffer) -> Option<Vec<u8>> {
    let file = CachedFile::open_at(directory, &format!("{tid}/comm"), path).ok().flatten()?;
    let name = file.read(buffer).ok().flatten()?;
    name.strip_suffix(b"\n").map(<[u8]>::to_vec)
}

/// Start of a thread; `None` if it is unreadable.
fn start_ticks(directory: &OwnedFd, path: &Path, tid: u32, buffer: &mut Buffer) -> Option<u64> {
    let file = CachedFile::open_at(directory, &format!("{tid}/stat"), path).ok().flatten()?;
    file.read_parsed(buffer, parse_stat).ok().flatten().map(|stat| stat.start_ticks)
}
