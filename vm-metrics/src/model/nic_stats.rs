//! Numbers of a network interface of a VM. They are the **guest's**: rx is what it receives, tx what it sends.

#![warn(missing_docs)]

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use super::{Device, EarlierCounts, EbpfStats, FrameCounts, NicSince};

/// One network interface of a VM.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct NicStats {
    /// Name of the TAP on the host.
    pub device: String,
    /// The inode of the network namespace of the device, when it is not the daemon's.
    pub netns: Option<u64>,
    /// The interface index of the device; `None` when it was not read.
    pub ifindex: Option<u32>,
    /// What the device is.
    pub kind: NicKind,
    /// Where `rx` and `tx` come from.
    pub source: NicSource,
    /// How the programs hang on it.
    pub attach: AttachMode,
    /// When this VM came to have the device, in seconds of Unix time; `None` when that was before the first look.
    pub start_time: Option<f64>,
    /// What the guest took.
    pub rx: FrameCounts,
    /// What the guest sent.
    pub tx: FrameCounts,
    /// The device's count of the bytes that the guest sent, less the published one; `None` when there is one count only.
    pub mismatch_bytes: Option<i64>,
    /// What only the eBPF programs see; `None` when they are not on this TAP.
    pub ebpf: Option<EbpfStats>,
    /// Packets that wait for the guest, in the ring or in the queueing discipline: what was offered, less what the guest
    /// took and what was dropped. While traffic flows, also what came between the readings.
    pub rx_backlog_packets: Option<u64>,
    /// Their bytes; `None` also where the kernel does not tell of drops.
    pub rx_backlog_bytes: Option<u64>,
    /// Packets of `rx.dropped` whose reason is not known: the kernel has not told it. `None` where that cannot be said.
    pub rx_dropped_by_device: Option<u64>,
    /// Packets for the guest that the programs did not see: before they were attached, or while they were off. `ebpf`
    /// lacks them, `rx` does not.
    pub rx_gap_packets: Option<u64>,
    /// The same of packets that the guest sent; `tx` has them.
    pub tx_gap_packets: Option<u64>,
    /// What the devices have counted that the VM had under this name before; `None` when this is the first. The metrics
    /// contain it, the numbers above do not.
    pub earlier: Option<EarlierCounts>,
    /// The VM does not have it any more: its last numbers are shown for a while.
    pub gone: bool,
    /// Since when its counters, with the `earlier` ones, count from 0.
    #[serde(skip)]
    pub since: NicSince,
    /// The device that was read.
    #[serde(skip)]
    pub(crate) found: Option<Device>,
}

/// Where a NIC's numbers come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum NicSource {
    /// The programs on the TAP, continued from the device's counters.
    Ebpf,
    /// The device's counters, over netlink.
    Netlink,
    /// The device's counters, from sysfs.
    Sysfs,
    /// The device's counters, from `/proc/<pid>/net/dev` of a process in its network namespace.
    Procfs,
    /// Nothing could be read.
    #[default]
    None,
}

/// What kind of device a NIC is on the host. It decides which of the device's directions is which of the guest's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum NicKind {
    /// What the guest sends comes out of it, as if received.
    #[default]
    Tap,
    /// What the guest sends goes out through it to the network below, as sent.
    Macvtap,
}

/// How the programs hang on a TAP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// A TCX link, at the head of the chain.
    Tcx,
    /// A direct-action filter of a clsact qdisc.
    Clsact,
    /// Not at all.
    #[default]
    None,
}

impl NicStats {
    /// The counters of this device, in the form of the earlier ones.
    pub(crate) fn counts(&self) -> EarlierCounts {
        // Each field by its name: a new one does not compile before its author decides whether it is a counter.
        let Self {
            device: _,
            netns: _,
            ifindex: _,
            kind: _,
            source: _,
            attach: _,
            start_time: _,
            rx,
            tx,
            mismatch_bytes: _,
            ebpf,
            rx_backlog_packets: _,
            rx_backlog_bytes: _,
            rx_dropped_by_device,
            rx_gap_packets,
            tx_gap_packets,
            earlier: _,
            gone: _,
            since: _,
            found: _,
        } = *self;
        EarlierCounts { rx, tx, ebpf, rx_dropped_by_device, rx_gap_packets, tx_gap_packets }
    }

    /// The same interface with the counters of all devices that the VM had under this name.
    pub(crate) fn with_earlier(&self) -> Cow<'_, Self> {
        let Some(earlier) = &self.earlier else { return Cow::Borrowed(self) };
        let mut all = self.clone();
        all.set_counts(self.counts().continue_from(earlier));
        Cow::Owned(all)
    }

    pub(crate) fn set_counts(&mut self, counts: EarlierCounts) {
        let EarlierCounts { rx, tx, ebpf, rx_dropped_by_device, rx_gap_packets, tx_gap_packets } = counts;
        (self.rx, self.tx, self.ebpf) = (rx, tx, ebpf);
        self.rx_dropped_by_device = rx_dropped_by_device;
        (self.rx_gap_packets, self.tx_gap_packets) = (rx_gap_packets, tx_gap_packets);
    }
}

impl NicSource {
    /// As it is in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Netlink => "netlink",
            Self::Sysfs => "sysfs",
            Self::Procfs => "procfs",
            Self::None => "none",
        }
    }
}

impl NicKind {
    /// As it is in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Macvtap => "macvtap",
        }
    }
}

impl AttachMode {
    /// As it is in labels.
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
