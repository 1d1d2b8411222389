//! What is published of a VM. Network numbers are the **guest's**: rx is what it receives, tx what it sends.
//! A number that was not measured is `None`, never 0.

#![warn(missing_docs)]

use std::collections::BTreeMap;

use serde::Serialize;

use super::{CgroupStats, Hypervisor, NicStats, ProcessStats, UnmonitoredNic, VmSince, VmState};

/// The usage of one VM at one tick. Numbers are cumulative, but memory is that of now. CPU and memory are those of the
/// hypervisor process, read from the host. Network numbers are the **guest's** view.
///
/// ```
/// use vm_metrics::ProcessStats;
///
/// let process = ProcessStats { cpu_usec: Some(1_500_000), ..Default::default() };
/// let vm = vm_metrics::VmStats { process, ..Default::default() };
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
    /// Numbers of the hypervisor process.
    #[serde(flatten)]
    pub process: ProcessStats,
    /// The vCPUs that have a thread which is known by its name, by number; none where threads have no such names.
    pub vcpus: Vec<VcpuStats>,
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
    /// Network interfaces without a device on the host, and so without numbers.
    pub unmonitored: Vec<UnmonitoredNic>,
    /// Since when its counters count from 0.
    #[serde(skip)]
    pub since: VmSince,
}

impl VmStats {
    /// CPU time of the hypervisor process in seconds: [`cpu_usec`](ProcessStats::cpu_usec), and `None` with it.
    pub fn cpu_seconds(&self) -> Option<f64> {
        self.process.cpu_usec.map(|usec| usec as f64 / 1e6)
    }

    /// RSS / allocated memory. May exceed 1: the hypervisor needs memory of its own. `None` when either is not known, or 0
    /// bytes are allocated.
    ///
    /// ```
    /// use vm_metrics::ProcessStats;
    ///
    /// let vm = vm_metrics::VmStats {
    ///     process: ProcessStats { memory_rss_bytes: Some(3 << 30), ..Default::default() },
    ///     allocated_memory_bytes: Some(2 << 30),
    ///     ..Default::default()
    /// };
    /// assert_eq!(vm.memory_utilization_ratio(), Some(1.5));
    /// ```
    pub fn memory_utilization_ratio(&self) -> Option<f64> {
        let allocated = self.allocated_memory_bytes.filter(|bytes| *bytes > 0)?;
        Some(self.process.memory_rss_bytes? as f64 / allocated as f64)
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
        let mut vm = VmStats::default();
        vm.process.memory_rss_bytes = Some(300);
        assert_eq!(vm.memory_utilization_ratio(), None);
        vm.allocated_memory_bytes = Some(0);
        assert_eq!(vm.memory_utilization_ratio(), None);
        vm.allocated_memory_bytes = Some(200);
        assert_eq!(vm.memory_utilization_ratio(), Some(1.5));
        vm.process.memory_rss_bytes = None;
        assert_eq!(vm.memory_utilization_ratio(), None);
    }
}
