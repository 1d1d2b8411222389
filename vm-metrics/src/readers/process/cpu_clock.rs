//! Reads the CPU clock of a process, in nanoseconds.
//!
//! It counts all threads, also those that have ended. Every user may read it.

use std::mem::MaybeUninit;

use crate::host::Host;
use crate::procfs::is_of_own_pid_namespace;

/// `PID_MAX_LIMIT` of the kernel. What is greater does not fit into the id of a clock, and would be the id of another.
const MAX_PID: libc::pid_t = 1 << 22;

/// Reads the clocks of the processes of one host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuClocks(());

impl CpuClocks {
    /// `None` for a host whose pids are not those that the kernel takes from this process: one made of files, or seen
    /// from inside a container. Another process would be read there.
    pub(crate) fn new(host: &Host) -> Option<Self> {
        let status = std::fs::read(host.process_itself().join("status")).ok()?;
        (host.is_this_kernel() && is_of_own_pid_namespace(&status)).then_some(Self(()))
    }

    /// `None` when there is no such process. Which process it is that has the pid now the clock does not say.
    pub(crate) fn read_nsec(self, pid: u32) -> Option<u64> {
        let pid = libc::pid_t::try_from(pid).ok().filter(|pid| (1..=MAX_PID).contains(pid))?;
        let mut clock = MaybeUninit::uninit();
        // SAFETY: it writes one clockid_t to where there is room for one, when it gives 0.
        let clock = unsafe {
            if libc::clock_getcpuclockid(pid, clock.as_mut_ptr()) != 0 {
                return None;
            }
            clock.assume_init()
        };
        let mut time = MaybeUninit::uninit();
        // SAFETY: it writes one timespec to where there is room for one, when it gives 0.
        let time = unsafe {
            if libc::clock_gettime(clock, time.as_mut_ptr()) != 0 {
                return None;
            }
            time.assume_init()
        };
        let (seconds, nanoseconds) = (u64::try_from(time.tv_sec).ok()?, u64::try_from(time.tv_nsec).ok()?);
        seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_living_process_has_a_clock() {
        let clocks = CpuClocks::new(&Host::default()).expect("the pids of this process");
        let pid = std::process::id();
        let before = clocks.read_nsec(pid).expect("own clock");
        assert!(clocks.read_nsec(pid).expect("own clock") >= before);
        assert_eq!(clocks.read_nsec(u32::MAX), None);
        assert_eq!(clocks.read_nsec(0), None, "which would be this process itself");
        assert_eq!(clocks.read_nsec(i32::MAX.cast_unsigned()), None);
    }

    #[test]
    fn a_host_made_of_files_has_no_clocks() {
        let files = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(files.path().join("self")).expect("a directory");
        std::fs::write(files.path().join("self/status"), "NSpid:\t7\nThreads:\t1\n").expect("a file");
        assert!(CpuClocks::new(&Host::new(files.path(), "/sys")).is_none());
    }
}
