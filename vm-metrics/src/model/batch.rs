//! What the readers read in one tick, in the words of their sources. Nothing is merged or turned round yet.

use std::collections::{HashMap, HashSet};

use vm_metrics_common::{Counters, DropCounts, Splits};

use super::{
    AttachMode, CgroupStats, Device, DeviceExit, DeviceId, InstanceInfo, Nic, NicSource, ProcessStats, VmSet,
};

/// Numbers of namespaces from here on are given by `net`, where the kernel gives none: they mean nothing to another
/// process.
pub const FIRST_NUMBER: u64 = 1 << 63;

/// The readings of one tick. A reader that could not read something leaves it out.
#[derive(Debug, Default)]
pub struct Batch {
    pub processes: HashMap<u32, ProcessReading>,
    /// Processes of removed VMs. Their pids may be those of others by now.
    pub removed_processes: HashMap<u32, ProcessReading>,
    /// Processes that need no reading of their files: `task_iter` has all numbers of them.
    pub complete: HashSet<u32>,
    /// Hypervisor processes that a source lists and that have ended.
    pub ended: HashSet<u32>,
    /// By process.
    pub threads: HashMap<u32, ThreadsReading>,
    /// Of each interface, in the order of [`VmSet::nics`](super::VmSet::nics): first of the VMs, then of removed ones.
    pub nics: Vec<NicReadings>,
    /// The counters of the programs that are on; the others do not count.
    pub splits: Splits,
    /// Devices that had gone before those of this tick were read, whether a VM had them or none.
    pub exits: Vec<(DeviceId, DeviceExit)>,
    /// Devices that have come and gone since the last tick.
    pub short_lived: Vec<ShortLivedDevice>,
}

impl Batch {
    /// One without readings, with a place for each interface of the VMs.
    pub(crate) fn of(vms: &VmSet) -> Self {
        Self { nics: vec![NicReadings::default(); vms.nics().count()], ..Self::default() }
    }

    /// The VMs with a process whose files are to be read.
    pub(crate) fn incomplete<'v>(&self, vms: &'v VmSet) -> Vec<&'v InstanceInfo> {
        let is_incomplete =
            |vm: &&InstanceInfo| vm.hypervisor_pid.is_some_and(|pid| !self.complete.contains(&pid));
        vms.vms.iter().filter(is_incomplete).collect()
    }

    /// Adds what a reader has read of a process.
    pub(crate) fn add_process(&mut self, pid: u32, stats: ProcessStats) {
        self.processes.entry(pid).or_default().add(stats);
    }

    /// The interfaces of removed VMs, each with the position of its readings.
    pub(crate) fn removed_nics<'v>(
        &self,
        removals: &'v VmSet,
    ) -> impl Iterator<Item = (usize, &'v Nic)> + use<'v> {
        let first = self.nics.len() - removals.nics().count();
        (first..).zip(removals.nics())
    }
}

/// The interfaces of each VM, of readings in the order of [`VmSet::nics`].
pub(crate) fn by_vm<'r>(
    vms: &'r VmSet,
    mut readings: &'r [NicReadings],
) -> impl Iterator<Item = (&'r InstanceInfo, &'r [NicReadings])> {
    vms.vms.iter().map(move |vm| {
        let (of_vm, rest) = readings.split_at(vm.nics.len());
        readings = rest;
        (vm, of_vm)
    })
}

/// The readings of one interface: all of the same device.
#[derive(Clone, Copy, Debug, Default)]
pub struct NicReadings {
    /// `None` while no device has the name.
    pub device: Option<Device>,
    pub tap: Option<TapReading>,
    pub ebpf: Option<EbpfReading>,
    /// Frames for the guest that were dropped after the programs had counted them.
    pub drops: Option<DropCounts>,
    /// The tracepoint may have counted drops that could not be read yet.
    pub awaits_drops: bool,
    /// What became of a removed device.
    pub exit: Option<DeviceExit>,
    /// The device has come and gone since the last tick, and no other has the name now.
    pub is_short_lived: bool,
}

impl NicReadings {
    /// The device, if anything was read of it.
    pub(crate) fn read_device(&self) -> Option<Device> {
        self.device.filter(|_| self.tap.is_some() || self.ebpf.is_some())
    }
}

/// A device that has come and gone between two ticks, with all that it has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortLivedDevice {
    pub nic: Nic,
    pub device: Device,
    pub stats: TapStats,
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

impl ProcessReading {
    pub(crate) fn add(&mut self, stats: ProcessStats) {
        self.stats = stats.or(self.stats);
    }
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

/// What a device counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapReading {
    /// Who asked the device: the numbers are the same.
    pub source: NicSource,
    pub stats: TapStats,
}

/// Counters of a device as the **host** sees them. Of a TAP rx is what the VM transmitted, tx what it received;
/// [`NicKind`](super::NicKind) says of which devices that is not so.
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
    pub attach: AttachMode,
    pub counters: Counters,
    /// When they were attached, in seconds of Unix time; `None` where a daemon before this one has attached them.
    pub since: Option<f64>,
    /// Whether the programs can tell which GSO frames the kernel cuts before it delivers them.
    pub knows_segmentation: bool,
}
