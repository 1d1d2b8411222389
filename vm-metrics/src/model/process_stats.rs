//! Numbers of the hypervisor process of a VM, as the host counts them.
//!
//! A new number is one field and one line of [`ProcessStats::zip_with`], which does not compile without it. Readers fill it,
//! snapshots carry it, and tests refuse one that no reader reads or no metric shows.

#![warn(missing_docs)]

use serde::Serialize;

/// Numbers of one process. Counters are cumulative, gauges are those of now; `None` is not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(serde::Deserialize), serde(default))]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct ProcessStats {
    /// CPU time of the hypervisor process in microseconds: user and system, all threads, also ended ones. Read from the
    /// scheduler or the CPU clock of the process, or else from `/proc/<pid>/stat` in steps of 10 ms.
    pub cpu_usec: Option<u64>,
    /// How long threads of the hypervisor process were ready to run and had no CPU, in microseconds, all threads
    /// (`/proc/<pid>/task/<tid>/schedstat`): what is stolen from the VM, seen from the host. Since the daemon first saw the
    /// process, or since the process started if that was later.
    pub cpu_wait_usec: Option<u64>,
    /// Context switches of all threads of the hypervisor process, voluntary and involuntary
    /// (`/proc/<pid>/task/<tid>/schedstat`). Since the daemon first saw the process, or since the process started if that
    /// was later.
    pub context_switches: Option<u64>,
    /// Page faults of the hypervisor process that needed no read from storage, since its start, in all threads, also ended
    /// ones (`minflt` of `/proc/<pid>/stat`).
    pub minor_page_faults: Option<u64>,
    /// How often the hypervisor process touched a page that storage had to be read for (`majflt` of `/proc/<pid>/stat`).
    pub major_page_faults: Option<u64>,
    /// Threads that the hypervisor process has now (`num_threads` of `/proc/<pid>/stat`).
    pub threads: Option<u64>,
    /// Files that the hypervisor process has open now, sockets and the like among them (the size of `/proc/<pid>/fd`);
    /// `None` before Linux 6.2.
    pub open_files: Option<u64>,
    /// Resident memory of the hypervisor process in bytes (`/proc/<pid>/statm`).
    pub memory_rss_bytes: Option<u64>,
    /// Virtual memory of the hypervisor process in bytes (`/proc/<pid>/statm`).
    pub memory_vms_bytes: Option<u64>,
    /// Resident memory of the hypervisor process that no file is behind, in bytes (`RssAnon` of `/proc/<pid>/status`):
    /// the guest's, unless it was given a file, and the hypervisor's own. The three parts of the resident memory may be
    /// some pages per CPU off, and are read a moment after it.
    pub memory_anon_bytes: Option<u64>,
    /// Resident memory of the hypervisor process that is mapped from files, in bytes (`RssFile`).
    pub memory_file_bytes: Option<u64>,
    /// Resident shared memory of the hypervisor process in bytes (`RssShmem`): memfd, tmpfs and SysV, as the guest's is
    /// with vhost-user or virtiofs.
    pub memory_shmem_bytes: Option<u64>,
    /// Memory of the hypervisor process from hugetlbfs in bytes (`HugetlbPages`); not in the resident memory.
    pub memory_hugetlb_bytes: Option<u64>,
    /// Anonymous memory of the hypervisor process that is swapped out, in bytes (`VmSwap`).
    pub memory_swap_bytes: Option<u64>,
    /// Resident memory of the hypervisor process in bytes, of which what n processes share counts 1/n (PSS, `Pss` of
    /// `/proc/<pid>/smaps_rollup`): pages of KSM, files, memory given to vhost-user. `None` unless the reader `proc_smaps` is
    /// switched on; as old as its interval.
    pub memory_pss_bytes: Option<u64>,
    /// Resident memory of the hypervisor process in bytes that no other process has (USS, `Private_Clean` and
    /// `Private_Dirty`): what its end would free. `None` and old as the one above.
    pub memory_private_bytes: Option<u64>,
    /// Bytes that the hypervisor process had storage read, since it was started (`read_bytes` of `/proc/<pid>/io`); what
    /// the page cache had is not in it. `None` also without the right to ask, which is that of ptrace.
    pub disk_read_bytes: Option<u64>,
    /// Bytes that the hypervisor process had storage write, since it was started (`write_bytes` of `/proc/<pid>/io`);
    /// counted when a page becomes dirty.
    pub disk_write_bytes: Option<u64>,
    /// Of the bytes written, those that were thrown away before they reached storage, because the file was deleted or cut
    /// (`cancelled_write_bytes` of `/proc/<pid>/io`).
    pub disk_cancelled_write_bytes: Option<u64>,
}

impl ProcessStats {
    /// Each number by its kind, of the two that it is in `self` and `other`.
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

    /// These, and `other` where something is not known.
    pub(crate) fn or(self, other: Self) -> Self {
        self.zip_with(other, Option::or, Option::or)
    }

    /// The last numbers of a process that has ended: its counters, and nothing in use.
    pub(crate) fn ended(self, before: Self) -> Self {
        self.zip_with(before, Option::or, |_, _| None)
    }
}
