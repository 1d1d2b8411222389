//! What the readers read in one tick, in the words of their sources. Nothing is merged or turned round yet.

use std::collections::{HashMap, HashSet};

use vm_metrics_common::{Counters, DropCounts, Splits};

use super::{AttachMode, CgroupStats, InstanceInfo, Nic, NicKind, NicSource, ProcessStats, VmSet};

/// Numbers of namespaces from here on are given by a reader, where the kernel gives none: they mean nothing to another
/// process.
pub const FIRST_NUMBER: u64 = 1 << 63;

/// The readings of one tick. A reader that could not read something leaves it out.
#[derive(Debug, Default)]
pub struct Batch {
    pub processes: HashMap<u32, ProcessReading>,
    /// Processes that need no reading of their files: `task_iter` has all numbers of them.
    pub complete: HashSet<u32>,
    /// Hypervisor processes that a source lists and that have ended.
    pub ended: HashSet<u32>,
    /// By process.
    pub threads: HashMap<u32, ThreadsReading>,
    pub taps: HashMap<Nic, TapReading>,
    pub ebpf: HashMap<Nic, EbpfReading>,
    /// The counters of `ebpf` that are on; the others do not count.
    pub splits: Splits,
    pub drops: HashMap<Nic, DropReading>,
    /// NICs of which the tracepoint may have counted drops that could not be read yet.
    pub drops_awaited: HashSet<Nic>,
    /// What became of devices that the kernel says are gone.
    pub nic_exits: HashMap<Nic, DeviceExit>,
    /// Devices that had gone before those of this tick were read, whether a VM had them or none.
    pub exits: Vec<ExitNotice>,
    /// NICs whose reading is that of a device that has come and gone since the last tick.
    pub short_lived_nics: HashSet<Nic>,
    /// Devices that have come and gone since the last tick under the name of a NIC, with all that each has counted.
    pub short_lived: Vec<(Nic, TapReading)>,
    /// Of the network namespaces in which something was read, by inode: a number that no other namespace has or will have,
    /// as the inode may.
    pub namespaces: HashMap<u64, u64>,
}

impl Batch {
    /// The VMs with a process whose files are to be read.
    pub(crate) fn incomplete<'v>(&self, vms: &'v VmSet) -> Vec<&'v InstanceInfo> {
        let is_incomplete =
            |vm: &&InstanceInfo| vm.hypervisor_pid.is_some_and(|pid| !self.complete.contains(&pid));
        vms.vms.iter().filter(is_incomplete).collect()
    }

    /// Adds what a reader has read of a process.
    pub(crate) fn add_process(&mut self, pid: u32, stats: ProcessStats) {
        let reading = self.processes.entry(pid).or_default();
        reading.stats = stats.or(reading.stats);
    }
}

/// Why a device is not where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceExit {
    Deleted,
    /// It lives on in another network namespace, with this index; 0 where the kernel does not say it.
    Moved {
        ifindex: u32,
    },
}

/// A device that is not where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitNotice {
    /// The inode of the network namespace that it was in; `None` for that of this process.
    pub netns: Option<u64>,
    pub ifindex: u32,
    pub exit: DeviceExit,
}

/// What was there in the tick before and is not any more: whole VMs, or VMs with only the interfaces they have lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removals {
    pub vms: VmSet,
    /// The interface indexes of their devices. Another device may have the name by now.
    pub ifindexes: HashMap<Nic, u32>,
}

/// What `/proc` says of a hypervisor process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessReading {
    /// When it started, in clock ticks since boot: with the pid, what tells it from any other process.
    pub start_ticks: Option<u64>,
    pub stats: ProcessStats,
    /// As old as the interval of its reader.
    pub cgroup: Option<CgroupStats>,
}

/// What the scheduler says of the threads of a hypervisor process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadsReading {
    /// In the order of their numbers.
    pub vcpus: Vec<VcpuReading>,
    /// Number of vCPUs with a thread, also of those that the list leaves out. `None` if no vCPU thread is known, or if a
    /// thread is unreadable.
    pub vcpu_count: Option<u32>,
}

/// The thread of one vCPU, since it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuReading {
    pub vcpu: u32,
    pub thread: u32,
    /// When the thread was started, in clock ticks since boot.
    pub start_ticks: Option<u64>,
    pub times: SchedTimes,
}

/// What the scheduler counts of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedTimes {
    /// On a CPU, guest and host time.
    pub run_nsec: u64,
    /// Ready to run, and no CPU.
    pub wait_nsec: u64,
    /// How often it was given a CPU.
    pub switches: u64,
}

/// A device and what it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapReading {
    pub ifindex: u32,
    /// Who asked the device: the numbers are the same.
    pub source: NicSource,
    pub kind: NicKind,
    pub stats: TapStats,
}

/// Counters of a device as the **host** sees them. Of a TAP rx is what the VM transmitted, tx what it received;
/// [`NicKind`] says of which devices that is not so.
/// [`VmStats`](super::VmStats) has them the other way round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapStats {
    /// Bytes the host received: the VM transmitted them.
    pub rx_bytes: u64,
    /// Bytes the host transmitted: the VM received them.
    pub tx_bytes: u64,
    /// Packets the host received: the VM transmitted them. A GSO frame is one.
    pub rx_packets: u64,
    /// Packets the host transmitted: the VM received them.
    pub tx_packets: u64,
    /// Frames from the VM that were no frames.
    pub rx_errors: u64,
    /// Frames to the VM that could not be given to it.
    pub tx_errors: u64,
    /// Frames from the VM that the host refused.
    pub rx_dropped: u64,
    /// Frames to the VM that found its ring full.
    pub tx_dropped: u64,
}

/// What the programs on the device counted since they were attached, **host** perspective: on a TAP ingress is what the
/// guest sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EbpfReading {
    pub ifindex: u32,
    pub kind: NicKind,
    pub attach: AttachMode,
    pub counters: Counters,
    /// When they were attached, in seconds of Unix time; `None` where a daemon before this one has attached them.
    pub since: Option<f64>,
    /// Whether the programs can tell which GSO frames the kernel cuts before it delivers them.
    pub knows_segmentation: bool,
}

/// Frames for the guest that were dropped after the programs had counted them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropReading {
    pub ifindex: u32,
    pub counts: DropCounts,
}
