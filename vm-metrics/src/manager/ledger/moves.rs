//! Devices on their way from one network namespace to another. The device goes on counting where it was, so what it had
//! counted by then is what its next account begins at: it has been published already.

use super::Seen;
use super::totals::{Totals, fell};

/// Ticks in which the device may be found again; its VM has to be looked at anew.
const PATIENCE: u64 = 64;

#[derive(Debug, Default)]
pub(super) struct Moves {
    moved: Vec<Moved>,
}

#[derive(Debug)]
struct Moved {
    tick: u64,
    owner: String,
    tap: String,
    from: Option<u64>,
    /// All that the device had counted, whoever had it.
    line: Totals,
}

impl Moves {
    pub(super) fn add(&mut self, tick: u64, owner: &str, seen: &Seen<'_>, line: Totals) {
        let (owner, tap) = (owner.to_owned(), seen.nic.tap.clone());
        self.moved.push(Moved { tick, owner, tap, from: seen.nic.netns, line });
    }

    /// What this device had counted when it left where it was; `None` when it is not one that has moved.
    pub(super) fn take(&mut self, tick: u64, owner: &str, seen: &Seen<'_>) -> Option<Totals> {
        self.moved.retain(|moved| tick - moved.tick <= PATIENCE);
        let is_it = |moved: &Moved| {
            let counts_on = !fell(&seen.rx, &moved.line.rx) && !fell(&seen.tx, &moved.line.tx);
            moved.owner == owner && moved.tap == seen.nic.tap && moved.from != seen.nic.netns && counts_on
        };
        let at = self.moved.iter().position(is_it)?;
        let Totals { rx, tx, .. } = self.moved.swap_remove(at).line;
        Some(Totals { rx, tx, ebpf: None })
    }
}
