//! The published numbers of a VM. Network numbers are the **guest's**: rx is its input, tx its output. A number without a
//! measurement is `None`, never 0.

#![warn(missing_docs)]

use std::collections::BTreeMap;

use serde::Serialize;

use super::{CgroupStats, Hypervisor, NicStats, ProcessStats, UnmonitoredNic, VmSince, VmState};

/// The usage of one VM at one tick. Numbers are cumulative, except memory, which is current. CPU and memory are those of
/// the hypervisor process. Network numbers are the **guest's** view.
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
    /// The id from its source, unique on this host.
    pub instance_id: String,
    /// The name for people.
    pub instance_name: String,
    /// The hypervisor.
    pub hypervisor: Hypervisor,
    /// The hypervisor process; `None` for a VM without one, which has network numbers only.
    pub hypervisor_pid: Option<u32>,
    /// False for a terminated VM, whose final numbers these are.
    pub running: bool,
    /// Start of the hypervisor process, in seconds of Unix time.
    pub start_time: Option<f64>,
    /// Numbers of the hypervisor process.
    #[serde(flatten)]
    pub process: ProcessStats,
    /// The vCPUs whose threads have known names, by number; none if threads have no such names.
    pub vcpus: Vec<VcpuStats>,
    /// Counters of the hypervisor process's control group (v2). `None` if the group also has another VM or the daemon, and
    /// with cgroup v1. Read once in the interval of the reader `cgroup`, 10 seconds by default.
    pub cgroup: Option<CgroupStats>,
    /// Bytes that the guest received on all NICs, removed ones included; `None` if a present NIC has no number. The sum
    /// does not fall while the process lives; over a restart of the daemon, that needs a `state_dir`.
    #[serde(rename = "network_rx_bytes")]
    pub net_rx_bytes: Option<u64>,
    /// Bytes that the guest sent; a sum like the one above.
    #[serde(rename = "network_tx_bytes")]
    pub net_tx_bytes: Option<u64>,
    /// Packets of the host that the guest received; a sum like the ones above.
    #[serde(rename = "network_rx_packets")]
    pub net_rx_packets: Option<u64>,
    /// Packets of the host that the guest sent; a sum like the ones above.
    #[serde(rename = "network_tx_packets")]
    pub net_tx_packets: Option<u64>,
    /// The vCPUs of the VM; `None` if no source has the number.
    pub allocated_vcpus: Option<u32>,
    /// The memory of the VM in bytes, hot-plugged memory included; `None` if no source has it.
    pub allocated_memory_bytes: Option<u64>,
    /// The part of the memory that the balloon leaves to the guest, in bytes; `None` without a balloon.
    pub actual_memory_bytes: Option<u64>,
    /// The state of its vCPUs in the last answer of its VMM, requested every 30 seconds; `None` if no source has it.
    pub state: Option<VmState>,
    /// The owner of the VM, by the orchestrator's name.
    pub project: Option<String>,
    /// The Kubernetes namespace of a KubeVirt VM whose process is a trusted user's.
    pub namespace: Option<String>,
    /// The UID of the Kubernetes pod in which its process runs.
    pub pod_uid: Option<String>,
    /// Its tags from the orchestrator, by name; only the names in the configuration.
    pub tags: BTreeMap<String, String>,
    /// The orchestrator's limit of its input, in bytes per second; `None` without a limit, or if no source has it.
    pub network_limit_rx_bytes_per_second: Option<u64>,
    /// The orchestrator's limit of its output, in bytes per second; `None` like the one above.
    pub network_limit_tx_bytes_per_second: Option<u64>,
    /// The orchestrator's attempts to start it again since it last ran well; `None` if it makes none.
    pub restart_attempts: Option<u64>,
    /// Each network interface, with drops, errors and the counters of the eBPF programs.
    pub nics: Vec<NicStats>,
    /// Network interfaces without a device on the host, and so without numbers.
    pub unmonitored: Vec<UnmonitoredNic>,
    /// The moments at which its counters began at 0.
    #[serde(skip)]
    pub since: VmSince,
}

impl VmStats {
    /// CPU time of the hypervisor process in seconds: [`cpu_usec`](ProcessStats::cpu_usec), and `None` with it.
    pub fn cpu_seconds(&self) -> Option<f64> {
        self.process.cpu_usec.map(|usec| usec as f64 / 1e6)
    }

    /// RSS / allocated memory. May exceed 1, because the hypervisor needs memory of its own. `None` if either is unknown,
    /// or 0 bytes are allocated.
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

/// One vCPU: its thread on the host, since the start of that thread (`/proc/<pid>/task/<tid>/schedstat`). A vCPU that is
/// unplugged and plugged in again has another thread, and counts from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct VcpuStats {
    /// Its number in the guest.
    pub vcpu: u32,
    /// The id of the thread on the host.
    pub thread: u32,
    /// Time on a CPU of the host, in microseconds: the guest's own, and the emulation of this thread.
    pub cpu_usec: u64,
    /// Time ready to run without a CPU of the host, in microseconds: the guest's steal.
    pub wait_usec: u64,
    /// Start of its thread, in seconds of Unix time.
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
