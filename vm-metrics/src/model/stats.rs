//! What is published of a VM. Network numbers are the **guest's**: rx is what it receives, tx what it sends.
//! A number that was not measured is `None`, never 0.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Hypervisor, UncountedNic};

/// What one VM uses, at one tick.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct VmStats {
    pub instance_id: String,
    pub instance_name: String,
    pub hypervisor: Hypervisor,
    pub hypervisor_pid: Option<u32>,
    /// False for a VM that is gone and whose last numbers these are.
    pub running: bool,
    /// When the hypervisor process started, in seconds of Unix time.
    pub start_time: Option<f64>,
    /// CPU time of the hypervisor process in microseconds, user and system, all threads (`/proc/<pid>/stat`).
    pub cpu_usec: Option<u64>,
    /// Resident memory of the hypervisor process in bytes (`/proc/<pid>/statm`).
    pub memory_rss_bytes: Option<u64>,
    /// Virtual memory of the hypervisor process in bytes (`/proc/<pid>/statm`).
    pub memory_vms_bytes: Option<u64>,
    /// Bytes the guest received, all NICs; `None` when it is not known of one of them.
    #[serde(rename = "network_rx_bytes")]
    pub net_rx_bytes: Option<u64>,
    /// Bytes the guest sent, all NICs; `None` when it is not known of one of them.
    #[serde(rename = "network_tx_bytes")]
    pub net_tx_bytes: Option<u64>,
    #[serde(rename = "network_rx_packets")]
    pub net_rx_packets: Option<u64>,
    #[serde(rename = "network_tx_packets")]
    pub net_tx_packets: Option<u64>,
    pub allocated_vcpus: Option<u32>,
    pub allocated_memory_bytes: Option<u64>,
    pub nics: Vec<NicStats>,
    /// Network interfaces that cannot be counted.
    pub uncounted: Vec<UncountedNic>,
}

impl VmStats {
    /// CPU time in seconds.
    pub fn cpu_seconds(&self) -> Option<f64> {
        self.cpu_usec.map(|usec| usec as f64 / 1e6)
    }

    /// RSS / allocated memory. May exceed 1: the hypervisor needs memory of its own. `None` when either is not known.
    pub fn memory_utilization_ratio(&self) -> Option<f64> {
        let allocated = self.allocated_memory_bytes.filter(|bytes| *bytes > 0)?;
        Some(self.memory_rss_bytes? as f64 / allocated as f64)
    }
}

/// One network interface of a VM.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct NicStats {
    /// Name of the TAP on the host.
    pub device: String,
    /// The inode of the network namespace of the device, when it is not the daemon's.
    pub netns: Option<u64>,
    pub ifindex: Option<u32>,
    pub kind: NicKind,
    /// Where `rx` and `tx` come from.
    pub source: NicSource,
    pub attach: AttachMode,
    /// When the daemon first saw the device as this VM's, in seconds of Unix time; nothing was reset since.
    pub start_time: Option<f64>,
    /// What the guest took.
    pub rx: FrameCounts,
    /// What the guest sent.
    pub tx: FrameCounts,
    /// The device's count of the bytes that the guest sent, less the published one; `None` when there is one count only.
    pub mismatch_bytes: Option<i64>,
    /// What only the eBPF programs see; `None` when they are not on this TAP.
    pub ebpf: Option<EbpfStats>,
}

/// Frames of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct FrameCounts {
    pub bytes: Option<u64>,
    pub packets: Option<u64>,
    pub dropped: Option<u64>,
    pub errors: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct EbpfStats {
    /// What the host offered to the guest: delivered, dropped at the full ring, or still in it.
    pub rx: PacketMix,
    pub tx: PacketMix,
}

/// One direction as the programs saw it, since they were attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct PacketMix {
    pub bytes: u64,
    pub packets: u64,
    /// A GSO frame counts as the packets that the wire would carry.
    pub wire_packets: u64,
    pub wire_bytes: u64,
    pub gso_packets: u64,
    pub ipv4: u64,
    pub ipv6: u64,
    pub arp: u64,
    pub other_l3: u64,
    pub tcp: u64,
    pub udp: u64,
    pub icmp: u64,
    pub other_l4: u64,
    pub unicast: u64,
    pub multicast: u64,
    pub broadcast: u64,
}

/// Where a NIC's numbers come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NicSource {
    /// The programs on the TAP, continued from the device's counters.
    Ebpf,
    /// The device's counters, over netlink.
    Netlink,
    /// The device's counters, from sysfs.
    Sysfs,
    /// Nothing could be read.
    #[default]
    None,
}

/// What kind of device a NIC is on the host. It decides which of the device's directions is which of the guest's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NicKind {
    /// What the guest sends comes out of it, as if received.
    #[default]
    Tap,
    /// What the guest sends goes out through it to the network below, as sent.
    Macvtap,
}

/// How the programs hang on a TAP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// A TCX link, at the head of the chain.
    Tcx,
    /// A direct-action filter of a clsact qdisc.
    Clsact,
    #[default]
    None,
}

impl NicSource {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Netlink => "netlink",
            Self::Sysfs => "sysfs",
            Self::None => "none",
        }
    }
}

impl NicKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Macvtap => "macvtap",
        }
    }
}

impl AttachMode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::None => "none",
        }
    }
}

impl fmt::Display for NicSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
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
