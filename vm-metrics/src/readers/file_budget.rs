//! Divides the files that the daemon may open between server, processes and threads.

use rustix::process::{Resource, getrlimit};

/// Connections that the HTTP server accepts at the same time.
const CONNECTIONS: u64 = 64;

/// Open files of a daemon without VMs: 31 by `ls /proc/PID/fd | wc -l`, with programs and its three standard streams.
const WITHOUT_VMS: u64 = 32;

/// Of a VM with one interface: files of its process, sockets, links of the programs, and some that are open for a moment.
const PER_VM: u64 = 16;

/// With fewer the daemon is of no use: one VM, and the server answers.
const MINIMUM: u64 = WITHOUT_VMS + CONNECTIONS + PER_VM;

/// The parts of the limit. None of them takes from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileBudget {
    pub(crate) limit: u64,
    /// Connections, and the open files of a daemon without VMs.
    pub(crate) server: u64,
    /// Files of the processes of VMs, sockets to them, and links of programs.
    pub(crate) processes: u64,
    /// Files of their threads.
    pub(crate) threads: u64,
}

impl FileBudget {
    /// Of this process, by the limit that it has now.
    pub(crate) fn of_this_process() -> Self {
        Self::of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    /// Threads may be many more than processes, and one process can do without: so they have no more than half.
    pub(crate) fn of(limit: u64) -> Self {
        let server = WITHOUT_VMS + CONNECTIONS;
        let rest = limit.saturating_sub(server);
        let threads = rest / 2;
        Self { limit, server, processes: rest - threads, threads }
    }

    /// How many files are needed at least, where this is not enough.
    pub(crate) fn shortage(&self) -> Option<u64> {
        (self.limit < MINIMUM).then_some(MINIMUM)
    }

    /// How many VMs there is room for.
    pub(crate) fn vms(&self) -> u64 {
        (self.processes + self.threads) / PER_VM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_keeps_its_part_whatever_the_limit() {
        for limit in [0, 24, 64, 112, 1024, u64::MAX] {
            let budget = FileBudget::of(limit);
            let readers = budget.processes + budget.threads;
            assert_eq!(readers, limit.saturating_sub(budget.server), "{limit}");
            assert!(budget.threads <= budget.processes);
        }
    }

    #[test]
    fn room_for_one_vm_is_enough() {
        let shortage = |limit| FileBudget::of(limit).shortage();
        assert_eq!([shortage(24), shortage(111), shortage(112)], [Some(112), Some(112), None]);
        assert_eq!([112, 1024].map(|limit| FileBudget::of(limit).vms()), [1, 58]);
    }
}
