//! Numbers of the hypervisor process of a VM, as the host counts them.
//!
//! A new number is one field and one line of [`ProcessStats::zip_with`], which does not compile without it. Readers fill it,
//! snapshots carry it, and tests refuse one that no reader reads or no metric shows.

#![warn(missing_docs)]

use serde::Serialize;

/// Numbers of one process. Counters are cumulative, gauges are current; `None` is unmeasured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(serde::Deserialize), serde(default))]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct ProcessStats {
    /// CPU time of the hypervisor process in microseconds: user and system, all threads, terminated ones included. From the
    /// CPU clock of the process, or else from `/proc/<pid>/stat` in steps of 10 ms.
    pub cpu_usec: Option<u64>,
    /// Time in which threads of the hypervisor process were ready to run without a CPU, in microseconds
    /// (`/proc/<pid>/task/<tid>/schedstat`): the VM's steal, measured on the host. Counted from the daemon's first tick
    /// with the process, or from a later start of the process.
    pub cpu_wait_usec: Option<u64>,
    /// Context switches of all threads of the hypervisor process, voluntary and involuntary
    /// (`/proc/<pid>/task/<tid>/schedstat`). Counted from the daemon's first tick with the process, or from a later start
    /// of the process.
    pub context_switches: Option<u64>,
    /// Page faults of the hypervisor process without a read from storage, since its start, in all threads, terminated ones
    /// included (`minflt` of `/proc/<pid>/stat`).
    pub minor_page_faults: Option<u64>,
    /// Page faults of the hypervisor process with a read from storage, since its start (`majflt` of `/proc/<pid>/stat`).
    pub major_page_faults: Option<u64>,
    /// Present threads of the hypervisor process (`num_threads` of `/proc/<pid>/stat`).
    pub threads: Option<u64>,
    /// Open files of the hypervisor process, sockets included (the size of `/proc/<pid>/fd`); `None` before Linux 6.2.
    pub open_files: Option<u64>,
    /// Resident memory of the hypervisor process in bytes (`/proc/<pid>/statm`).
    pub memory_rss_bytes: Option<u64>,
    /// Virtual memory of the hypervisor process in bytes (`/proc/<pid>/statm`).
    pub memory_vms_bytes: Option<u64>,
    /// Resident memory of the hypervisor process without a file, in bytes (`RssAnon` of `/proc/<pid>/status`): the guest's,
    /// unless a file backs it, and the hypervisor's own. This and the next two are read a moment after the resident memory,
    /// and may be some pages per CPU off.
    pub memory_anon_bytes: Option<u64>,
    /// Resident memory of the hypervisor process from mapped files, in bytes (`RssFile`).
    pub memory_file_bytes: Option<u64>,
    /// Resident shared memory of the hypervisor process in bytes (`RssShmem`): memfd, tmpfs and SysV. With vhost-user or
    /// virtiofs, the guest's memory is of this kind.
    pub memory_shmem_bytes: Option<u64>,
    /// Memory of the hypervisor process from hugetlbfs in bytes (`HugetlbPages`); not in the resident memory.
    pub memory_hugetlb_bytes: Option<u64>,
    /// Anonymous memory of the hypervisor process in swap, in bytes (`VmSwap`).
    pub memory_swap_bytes: Option<u64>,
    /// Resident memory of the hypervisor process in bytes, with 1/n of each page that n processes share (PSS, `Pss` of
    /// `/proc/<pid>/smaps_rollup`). Such pages are of KSM, files, or memory for vhost-user. `None` unless the reader
    /// `proc_smaps` is enabled; read once in its interval.
    pub memory_pss_bytes: Option<u64>,
    /// Resident memory of the hypervisor process alone, in bytes (USS, `Private_Clean` and `Private_Dirty`), which its end
    /// would free. `None` and interval are as above.
    pub memory_private_bytes: Option<u64>,
    /// Bytes that the hypervisor process read from storage since its start (`read_bytes` of `/proc/<pid>/io`), without
    /// reads from the page cache. `None` also without the right of ptrace.
    pub disk_read_bytes: Option<u64>,
    /// Bytes that the hypervisor process wrote to storage since its start (`write_bytes` of `/proc/<pid>/io`), counted when
    /// a page becomes dirty.
    pub disk_write_bytes: Option<u64>,
    /// Written bytes that never reached storage, because their file was deleted or truncated (`cancelled_write_bytes` of
    /// `/proc/<pid>/io`).
    pub disk_cancelled_write_bytes: Option<u64>,
}

impl ProcessStats {
    /// Combines each number of `self` and `other` by its kind.
    pub(crate) fn zip_with(
        self,
        other: Self,
        counter: impl Fn(Option<u64>, Option<u64>) -> Option<u64>,
        gauge: impl Fn(Option<u64>, Option<u64>) -> Option<u64>,
    ) -> Self {
        Self {
            cpu_usec: counter(self.cpu_usec, other.cpu_usec),
            cpu_wait_usec: counter(self.cpu_wait_usec, other.cpu_wait_usec),
            context_switches: counter(self.context_switches, other.context_switches),
            minor_page_faults: counter(self.minor_page_faults, other.minor_page_faults),
            major_page_faults: counter(self.major_page_faults, other.major_page_faults),
            threads: gauge(self.threads, other.threads),
            open_files: gauge(self.open_files, other.open_files),
            memory_rss_bytes: gauge(self.memory_rss_bytes, other.memory_rss_bytes),
            memory_vms_bytes: gauge(self.memory_vms_bytes, other.memory_vms_bytes),
            memory_anon_bytes: gauge(self.memory_anon_bytes, other.memory_anon_bytes),
            memory_file_bytes: gauge(self.memory_file_bytes, other.memory_file_bytes),
            memory_shmem_bytes: gauge(self.memory_shmem_bytes, other.memory_shmem_bytes),
            memory_hugetlb_bytes: gauge(self.memory_hugetlb_bytes, other.memory_hugetlb_bytes),
            memory_swap_bytes: gauge(self.memory_swap_bytes, other.memory_swap_bytes),
            memory_pss_bytes: gauge(self.memory_pss_bytes, other.memory_pss_bytes),
            memory_private_bytes: gauge(self.memory_private_bytes, other.memory_private_bytes),
            disk_read_bytes: counter(self.disk_read_bytes, other.disk_read_bytes),
            disk_write_bytes: counter(self.disk_write_bytes, other.disk_write_bytes),
            disk_cancelled_write_bytes: counter(
                self.disk_cancelled_write_bytes,
                other.disk_cancelled_write_bytes,
            ),
        }
    }

    /// These numbers; unknown ones are those of `other`.
    pub(crate) fn or(self, other: Self) -> Self {
        self.zip_with(other, Option::or, Option::or)
    }

    /// The last numbers of a process that has ended: its counters, and nothing in use.
    pub(crate) fn ended(self, before: Self) -> Self {
        self.zip_with(before, Option::or, |_, _| None)
    }
}
