//! What is published of a VM. Network numbers are the **guest's**: rx is what it receives, tx what it sends.
//! A number that was not measured is `None`, never 0.

#![warn(missing_docs)]

use std::collections::BTreeMap;

use serde::Serialize;

use super::{CgroupStats, Hypervisor, NicStats, UncountedNic, VmSince, VmState};

/// What one VM uses, at one tick. Numbers are cumulative since the start of what they count, but for memory, which is that of
/// now; CPU and memory are the hypervisor process's, read from the host, network the **guest's** view.
///
/// ```
/// let vm = vm_metrics::VmStats { cpu_usec: Some(1_500_000), ..Default::default() };
/// assert_eq!(vm.cpu_seconds(), Some(1.5));
/// assert_eq!(vm.net_rx_bytes, None, "not measured, which is not 0");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct VmStats {
    /// As its source calls it; unique on this host.
    pub instance_id: String,
    /// For people.
    pub instance_name: String,
    /// What runs it.
    pub hypervisor: Hypervisor,
    /// The hypervisor process; `None` for a VM that has none, of which only the network is read.
    pub hypervisor_pid: Option<u32>,
    /// False for a VM that is gone and whose last numbers these are.
    pub running: bool,
    /// When the hypervisor process started, in seconds of Unix time.
    pub start_time: Option<f64>,
    /// CPU time of the hypervisor process in microseconds, user and system, all threads, also those that have ended (the
    /// CPU clock of the process; where that cannot be asked `/proc/<pid>/stat`, in steps of 10 ms).
    pub cpu_usec: Option<u64>,
    /// How long threads of the hypervisor process were ready to run and had no CPU, in microseconds, all threads
    /// (`/proc/<pid>/task/<tid>/schedstat`): what is stolen from the VM, seen from the host. Since the daemon first saw the
    /// process, or since the process started if that was later.
    pub cpu_wait_usec: Option<u64>,
    /// How often threads of the hypervisor process were given a CPU, which is the number of its context switches, voluntary
    /// and involuntary; all threads, since the daemon first saw the process, or since the process started if that was later
    /// (`/proc/<pid>/task/<tid>/schedstat`).
    pub context_switches: Option<u64>,
    /// How often the hypervisor process touched a page that was in memory, or that needed none of storage; all threads, also
    /// those that have ended, since it was started (`minflt` of `/proc/<pid>/stat`).
    pub minor_page_faults: Option<u64>,
    /// How often the hypervisor process touched a page that storage had to be read for (`majflt` of `/proc/<pid>/stat`).
    pub major_page_faults: Option<u64>,
    /// Threads that the hypervisor process has now (`num_threads` of `/proc/<pid>/stat`).
    pub threads: Option<u64>,
    /// Files that the hypervisor process has open now, sockets and the like among them (the size of `/proc/<pid>/fd`);
    /// `None` before Linux 6.2.
    pub open_files: Option<u64>,
    /// The vCPUs that have a thread which is known by its name, by number; none where threads have no such names.
    pub vcpus: Vec<VcpuStats>,
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
    /// What the control group (v2) of the hypervisor process counts. `None` where that also holds another VM or the daemon, and
    /// where the host has cgroup v1; as old as the interval of the reader `cgroup`, 10 seconds by default.
    pub cgroup: Option<CgroupStats>,
    /// Bytes the guest received, all NICs, also those that it has no more; `None` when it is not known of one that it has.
    /// The sum does not fall while the process lives, over a restart of the daemon where that has a `state_dir`.
    #[serde(rename = "network_rx_bytes")]
    pub net_rx_bytes: Option<u64>,
    /// Bytes the guest sent; a sum as the one above.
    #[serde(rename = "network_tx_bytes")]
    pub net_tx_bytes: Option<u64>,
    /// Packets of the host that the guest received; a sum as the ones above.
    #[serde(rename = "network_rx_packets")]
    pub net_rx_packets: Option<u64>,
    /// Packets of the host that the guest sent; a sum as the ones above.
    #[serde(rename = "network_tx_packets")]
    pub net_tx_packets: Option<u64>,
    /// vCPUs that the VM was given; `None` when no source knows.
    pub allocated_vcpus: Option<u32>,
    /// Memory that the VM was given, in bytes, hot-plugged memory included; `None` when no source knows.
    pub allocated_memory_bytes: Option<u64>,
    /// What the balloon leaves the guest of it, in bytes; `None` without a balloon.
    pub actual_memory_bytes: Option<u64>,
    /// Whether its vCPUs run, as of the last answer of its VMM, which is asked every 30 seconds; `None` when no source knows.
    pub state: Option<VmState>,
    /// Whose VM it is, as the orchestrator calls them.
    pub project: Option<String>,
    /// The namespace of Kubernetes that it is in: of VMs of KubeVirt whose process is a trusted user's.
    pub namespace: Option<String>,
    /// The UID of the pod of Kubernetes in which its process runs.
    pub pod_uid: Option<String>,
    /// What its users have said of it, by name: the names that are in the configuration.
    pub tags: BTreeMap<String, String>,
    /// What the orchestrator lets it receive, in bytes per second; `None` when there is no limit, or no source knows it.
    pub network_limit_rx_bytes_per_second: Option<u64>,
    /// What the orchestrator lets it send; as the one above.
    pub network_limit_tx_bytes_per_second: Option<u64>,
    /// How often the orchestrator has tried to start it again since it last ran well; `None` where it does not try.
    pub restart_attempts: Option<u64>,
    /// Each network interface by itself, with drops, errors and what the eBPF programs count.
    pub nics: Vec<NicStats>,
    /// Network interfaces that cannot be counted.
    pub uncounted: Vec<UncountedNic>,
    /// Since when its counters count from 0.
    #[serde(skip)]
    pub since: VmSince,
}

impl VmStats {
    /// CPU time of the hypervisor process in seconds: [`cpu_usec`](Self::cpu_usec), and `None` with it.
    ///
    /// ```
    /// let vm = vm_metrics::VmStats { cpu_usec: Some(250_000), ..Default::default() };
    /// assert_eq!(vm.cpu_seconds(), Some(0.25));
    /// ```
    pub fn cpu_seconds(&self) -> Option<f64> {
        self.cpu_usec.map(|usec| usec as f64 / 1e6)
    }

    /// What the process of the VM uses now: nothing any more once it is gone.
    pub(crate) fn in_use_mut(&mut self) -> [&mut Option<u64>; 11] {
        [
            &mut self.threads,
            &mut self.open_files,
            &mut self.memory_rss_bytes,
            &mut self.memory_vms_bytes,
            &mut self.memory_anon_bytes,
            &mut self.memory_file_bytes,
            &mut self.memory_shmem_bytes,
            &mut self.memory_hugetlb_bytes,
            &mut self.memory_swap_bytes,
            &mut self.memory_pss_bytes,
            &mut self.memory_private_bytes,
        ]
    }

    /// RSS / allocated memory. May exceed 1: the hypervisor needs memory of its own. `None` when either is not known, or 0
    /// bytes are allocated.
    ///
    /// ```
    /// let vm = vm_metrics::VmStats {
    ///     memory_rss_bytes: Some(3 << 30),
    ///     allocated_memory_bytes: Some(2 << 30),
    ///     ..Default::default()
    /// };
    /// assert_eq!(vm.memory_utilization_ratio(), Some(1.5));
    /// ```
    pub fn memory_utilization_ratio(&self) -> Option<f64> {
        let allocated = self.allocated_memory_bytes.filter(|bytes| *bytes > 0)?;
        Some(self.memory_rss_bytes? as f64 / allocated as f64)
    }
}

/// One vCPU: its thread on the host, since that thread was started (`/proc/<pid>/task/<tid>/schedstat`). A vCPU that is
/// taken out and put in again has another thread, and counts from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct VcpuStats {
    /// Its number in the guest.
    pub vcpu: u32,
    /// The id of the thread on the host.
    pub thread: u32,
    /// On a CPU of the host, in microseconds: the guest's own time, and what emulation its thread does.
    pub cpu_usec: u64,
    /// Ready to run and without a CPU of the host, in microseconds: what the guest calls steal.
    pub wait_usec: u64,
    /// When its thread was started, in seconds of Unix time.
    #[serde(skip)]
    pub since: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_needs_both_numbers_and_may_exceed_one() {
        let mut vm = VmStats { memory_rss_bytes: Some(300), ..VmStats::default() };
        assert_eq!(vm.memory_utilization_ratio(), None);
        vm.allocated_memory_bytes = Some(0);
        assert_eq!(vm.memory_utilization_ratio(), None);
        vm.allocated_memory_bytes = Some(200);
        assert_eq!(vm.memory_utilization_ratio(), Some(1.5));
        vm.memory_rss_bytes = None;
        assert_eq!(vm.memory_utilization_ratio(), None);
    }

    #[test]
    fn cpu_seconds_are_seconds() {
        let vm = VmStats { cpu_usec: Some(1_500_000), ..VmStats::default() };
        assert_eq!(vm.cpu_seconds(), Some(1.5));
    }
}
