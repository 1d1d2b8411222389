//! Readings by the name of their interface, as tests write them.

use std::collections::HashMap;

use vm_metrics_common::{Counters, DropCounts};

use crate::manager::continuity::tests::daemon::Daemon;
use crate::model::{
    AttachMode, DeviceExit, EbpfReading, Nic, NicKind, NicReadings, NicSource, ProcessReading, TapReading,
    TapStats, VmSet,
};

/// The readings of one tick, by interface.
#[derive(Default)]
pub(super) struct Readings {
    pub(super) processes: HashMap<u32, ProcessReading>,
    pub(super) taps: HashMap<Nic, Tap>,
    pub(super) ebpf: HashMap<Nic, (u32, NicKind, EbpfReading)>,
    pub(super) drops: HashMap<Nic, DropCounts>,
    pub(super) awaits_drops: bool,
    pub(super) exits: HashMap<Nic, DeviceExit>,
}

/// A device of this index, and what it counts.
#[derive(Clone, Copy)]
pub(super) struct Tap {
    pub(super) ifindex: u32,
    pub(super) kind: NicKind,
    pub(super) reading: TapReading,
}

impl Readings {
    pub(super) fn of(&self, vms: &VmSet, daemon: &mut Daemon) -> Vec<NicReadings> {
        let of_nic = |nic: &Nic| {
            let (tap, ebpf) = (self.taps.get(nic), self.ebpf.get(nic));
            let found = tap.map(|tap| (tap.ifindex, tap.kind));
            let found = found.or(ebpf.map(|(ifindex, kind, _)| (*ifindex, *kind)));
            NicReadings {
                device: found.map(|(ifindex, kind)| daemon.find(nic, ifindex, kind)),
                tap: tap.map(|tap| tap.reading),
                ebpf: ebpf.map(|(.., reading)| *reading),
                drops: self.drops.get(nic).copied(),
                awaits_drops: self.awaits_drops,
                exit: self.exits.get(nic).copied(),
                is_short_lived: false,
            }
        };
        vms.nics().map(of_nic).collect()
    }
}

pub(super) fn device(ifindex: u32, rx_bytes: u64, tx_bytes: u64) -> Tap {
    let stats = TapStats { rx_bytes, tx_bytes, ..TapStats::default() };
    Tap { ifindex, kind: NicKind::Tap, reading: TapReading { source: NicSource::Netlink, stats } }
}

pub(super) fn ebpf(ifindex: u32, ingress_bytes: u64, egress_bytes: u64) -> (u32, NicKind, EbpfReading) {
    let mut counters = Counters::default();
    counters.ingress.bytes = ingress_bytes;
    counters.egress.bytes = egress_bytes;
    let reading =
        EbpfReading { attach: AttachMode::Tcx, counters, since: Some(1.0), knows_segmentation: true };
    (ifindex, NicKind::Tap, reading)
}

pub(super) fn batch(taps: &[(&str, Tap)], ebpf: &[(&str, (u32, NicKind, EbpfReading))]) -> Readings {
    let nic = |tap: &str| Nic::local(tap);
    Readings {
        taps: taps.iter().map(|(tap, reading)| (nic(tap), *reading)).collect(),
        ebpf: ebpf.iter().map(|(tap, reading)| (nic(tap), *reading)).collect(),
        ..Readings::default()
    }
}
