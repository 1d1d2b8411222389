//! Devices on their way from one network namespace to another. The device goes on counting where it was, so what it had
//! counted by then is what its next account begins at: it has been published already.

use serde::{Deserialize, Serialize};

use super::totals::{Totals, fell};
use super::{Account, KEEP_ELSEWHERE, Seen};
use crate::manager::shares::{self, Kept, Limit};
use crate::model::{Excess, FIRST_NUMBER, FrameCounts, Tenant};

/// Seconds within which a device is found again by its index, or by its name alone where the index is not known: its VM
/// may have to wait for a look at all processes. After that, by both: it may wait for its next VM where nobody looks.
const PATIENCE: f64 = 120.0;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct Moves {
    moved: Vec<Moved>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Moved {
    at: f64,
    /// Not known of what a daemon before this one has left.
    #[serde(skip, default = "nobody")]
    tenant: Tenant,
    tap: String,
    from: Option<u64>,
    /// What the kernel gives to no other device of this process's own namespace: it is the same when the device is back.
    #[serde(default)]
    device: Option<u64>,
    /// The index that it has now; 0 where the kernel does not say it.
    ifindex: u32,
    /// What the device itself had counted, guest perspective: rx and tx.
    raw: (FrameCounts, FrameCounts),
    /// All that was published of it, to whomever; `None` where a daemon before this one has published it.
    line: Option<Totals>,
}

impl Moves {
    pub(super) fn add(&mut self, now: f64, account: &Account, line: Option<Totals>, ifindex: u32) {
        let (tap, from, raw) = (account.nic.tap.clone(), account.nic.netns, account.raw);
        let device = account.device.filter(|device| from.is_none() && *device < FIRST_NUMBER);
        self.moved.push(Moved { at: now, tenant: account.tenant, tap, from, device, ifindex, raw, line });
    }

    /// Forgets those that have waited longest, where a user has too many.
    pub(super) fn keep(&mut self, limit: Limit, overuse: &mut Excess) {
        if self.moved.len() as u64 <= limit.others {
            return;
        }
        let kept = |moved: &Moved| Kept { tenant: moved.tenant, size: 1, worth: 0 };
        let gone = shares::beyond(self.moved.iter().map(kept), limit);
        gone.iter().for_each(|at| overuse.add(self.moved[*at].tenant.uid(), "moved devices", 1));
        shares::drop_at(&mut self.moved, &gone);
    }

    /// What had been published of this device when it left where it was, if anybody knows it; `None` when it is not one
    /// that has moved.
    pub(super) fn take(&mut self, now: f64, seen: &Seen<'_>, device: Option<u64>) -> Option<Option<Totals>> {
        self.moved.retain(|moved| now - moved.at <= KEEP_ELSEWHERE);
        let is_it = |moved: &Moved| {
            let is_young = now - moved.at <= PATIENCE;
            let is_named = moved.tap == seen.nic.tap;
            let same = match (moved.ifindex, seen.ifindex) {
                (0, _) | (_, 0) => is_named && is_young,
                (then, now) => then == now && (is_named || is_young),
            };
            let same = match moved.device.zip(device) {
                _ if moved.from != seen.nic.netns => same,
                // It may be back, and nobody saw where it was.
                Some((then, now)) if seen.nic.netns.is_none() => then == now,
                _ => same && is_named,
            };
            let (rx, tx) = &moved.raw;
            same && !fell(&seen.rx, rx) && !fell(&seen.tx, tx)
        };
        let at = self.moved.iter().position(is_it)?;
        let line = self.moved.remove(at).line;
        Some(line.map(|Totals { rx, tx, .. }| Totals { rx, tx, ebpf: None }))
    }
}

fn nobody() -> Tenant {
    Tenant::Other(None)
}
