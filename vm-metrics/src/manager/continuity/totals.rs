//! Cumulative counts of a device since its birth, over all its owners.

use serde::{Deserialize, Serialize};

use crate::model::{DirectionStats, EbpfStats, FrameCounts, Traffic};

/// Guest perspective.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(in crate::manager) struct Totals {
    pub(in crate::manager) rx: FrameCounts,
    pub(in crate::manager) tx: FrameCounts,
    /// Since the programs were attached.
    pub(in crate::manager) ebpf: Option<EbpfStats<u64>>,
}

impl Totals {
    /// The counts that came after `offset`.
    pub(super) fn since(&self, offset: &Self) -> Self {
        let count = |now: Option<u64>, offset: Option<u64>| Some(now?.saturating_sub(offset.unwrap_or(0)));
        let direction =
            |now: DirectionStats, offset| now.zip_with(offset, u64::saturating_sub, u64::saturating_sub);
        let traffic = |now: Option<Traffic>, offset: Option<Traffic>| {
            Some(now?.zip_with(offset.unwrap_or_default(), u64::saturating_sub))
        };
        Self {
            rx: self.rx.zip_with(offset.rx, count),
            tx: self.tx.zip_with(offset.tx, count),
            ebpf: self.ebpf.map(|now| now.zip_with(offset.ebpf.unwrap_or_default(), direction, traffic)),
        }
    }

    /// These, and `before` where something could not be read.
    pub(super) fn or(&self, before: &Self) -> Self {
        Self {
            rx: self.rx.zip_with(before.rx, Option::or),
            tx: self.tx.zip_with(before.tx, Option::or),
            ebpf: EbpfStats::or(self.ebpf, before.ebpf),
        }
    }
}

/// The device itself counts less than before: it is another one.
pub(super) fn decreased(now: &FrameCounts, before: &FrameCounts) -> bool {
    let decreased =
        |now: Option<u64>, before: Option<u64>| now.zip(before).is_some_and(|(now, before)| now < before);
    decreased(now.bytes, before.bytes) || decreased(now.packets, before.packets)
}

/// The programs count less than before: they were attached anew and count from 0.
pub(super) fn counts_anew<S>(now: &EbpfStats<S>, before: &EbpfStats<S>) -> bool {
    now.rx.packets < before.rx.packets || now.tx.packets < before.tx.packets
}
