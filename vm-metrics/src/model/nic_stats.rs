//! Numbers of a VM's network interface, from the **guest's** view: rx is its input.

#![warn(missing_docs)]

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use super::{Device, EarlierCounts, EbpfStats, FrameCounts, NicKind, NicSince};

/// One network interface of a VM.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct NicStats {
    /// Name of the TAP on the host.
    pub device: String,
    /// The inode of the network namespace of the device, when it is not the daemon's.
    pub netns: Option<u64>,
    /// The interface index of the device; `None` if it is unreadable.
    pub ifindex: Option<u32>,
    /// The kind of device.
    pub kind: NicKind,
    /// The source of `rx` and `tx`.
    pub source: NicSource,
    /// The attach method of the programs.
    pub attach: AttachMode,
    /// The moment from which this VM has the device, in seconds of Unix time; `None` if that was before the first tick.
    pub start_time: Option<f64>,
    /// Frames that the guest received.
    pub rx: FrameCounts,
    /// Frames that the guest sent.
    pub tx: FrameCounts,
    /// The device's count of the sent bytes, minus the published one; `None` if there is one count only.
    pub mismatch_bytes: Option<i64>,
    /// Counters of the eBPF programs; `None` if they are not attached.
    pub ebpf: Option<EbpfStats>,
    /// Packets that wait for the guest, in the ring or in the queueing discipline: the offered ones without the received
    /// and the dropped ones. Under traffic, packets between the readings are included.
    pub rx_backlog_packets: Option<u64>,
    /// Their bytes; `None` also if the kernel does not report drops.
    pub rx_backlog_bytes: Option<u64>,
    /// Packets of `rx.dropped` without a reason from the kernel. `None` while reasons may still arrive.
    pub rx_dropped_by_device: Option<u64>,
    /// Packets for the guest that the programs missed, before their attach or while they were detached. `ebpf` lacks them,
    /// `rx` does not.
    pub rx_gap_packets: Option<u64>,
    /// The same for packets that the guest sent; `tx` has them.
    pub tx_gap_packets: Option<u64>,
    /// The counts of the VM's former devices under this name; `None` for the first one. The metrics include them, the
    /// numbers above do not.
    pub earlier: Option<EarlierCounts>,
    /// True for a removed interface, whose final numbers stay for the retention.
    pub gone: bool,
    /// The moments at which its counters, with the `earlier` ones, began at 0.
    #[serde(skip)]
    pub since: NicSince,
    /// The device that was read.
    #[doc(hidden)]
    #[serde(skip)]
    pub found: Option<Device>,
}

/// The source of a NIC's numbers.
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
    /// None was readable.
    #[default]
    None,
}

/// The attach method of the programs on a TAP.
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
