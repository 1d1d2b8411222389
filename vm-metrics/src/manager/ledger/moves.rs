//! Devices on their way from one network namespace to another. The device goes on counting where it was, so what it had
//! counted by then is what its next account begins at: it has been published already.

use super::Seen;
use super::totals::{Totals, fell};
use crate::model::FrameCounts;

/// Seconds within which the device is found again: its VM may have to wait for a look at all processes.
const PATIENCE: f64 = 120.0;

#[derive(Debug, Default)]
pub(super) struct Moves {
    moved: Vec<Moved>,
}

#[derive(Debug)]
struct Moved {
    at: f64,
    tap: String,
    from: Option<u64>,
    /// The index that it has now; 0 where the kernel does not say it.
    ifindex: u32,
    /// What the device itself had counted, guest perspective: rx and tx.
    raw: (FrameCounts, FrameCounts),
    /// All that was published of it, to whomever.
    line: Totals,
}

impl Moves {
    pub(super) fn add(&mut self, now: f64, seen: &Seen<'_>, line: Totals, ifindex: u32) {
        let (tap, from, raw) = (seen.nic.tap.clone(), seen.nic.netns, (seen.rx, seen.tx));
        self.moved.push(Moved { at: now, tap, from, ifindex, raw, line });
    }

    /// What had been published of this device when it left where it was; `None` when it is not one that has moved.
    pub(super) fn take(&mut self, now: f64, seen: &Seen<'_>) -> Option<Totals> {
        self.moved.retain(|moved| now - moved.at <= PATIENCE);
        let is_it = |moved: &Moved| {
            let same = match (moved.ifindex, seen.ifindex) {
                (0, _) | (_, 0) => moved.tap == seen.nic.tap,
                (then, now) => then == now,
            };
            let (rx, tx) = &moved.raw;
            same && moved.from != seen.nic.netns && !fell(&seen.rx, rx) && !fell(&seen.tx, tx)
        };
        let at = self.moved.iter().position(is_it)?;
        let Totals { rx, tx, .. } = self.moved.swap_remove(at).line;
        Some(Totals { rx, tx, ebpf: None })
    }
}
