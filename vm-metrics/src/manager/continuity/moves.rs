//! Devices on their way from one network namespace to another. The device goes on counting where it was, so what it had
//! counted by then is what its next account begins at: it has been published already.

use serde::{Deserialize, Serialize};

use super::totals::{Totals, decreased};
use super::{DeviceAccount, DeviceReading, KEEP_ELSEWHERE};
use crate::manager::quota::{self, Limit, QuotaItem};
use crate::model::{Excess, FIRST_NUMBER, FrameCounts, Tenant};

/// Seconds within which a device is found again by its index, or by its name alone where the index is not known: its VM
/// may have to wait for a look at all processes. After that, by both: it may wait for its next VM where nobody looks.
const PATIENCE: f64 = 120.0;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct Moves {
    moved: Vec<DeviceMove>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct DeviceMove {
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
    #[serde(rename = "raw")]
    counts: (FrameCounts, FrameCounts),
    /// All that was published of it, to whomever; `None` where a daemon before this one has published it.
    #[serde(rename = "line")]
    cumulative: Option<Totals>,
}

impl Moves {
    pub(super) fn add(
        &mut self,
        now: f64,
        account: &DeviceAccount,
        cumulative: Option<Totals>,
        ifindex: u32,
    ) {
        let (tap, from, counts) = (account.nic.tap.clone(), account.nic.netns, account.counts);
        let device = account.device.filter(|device| from.is_none() && *device < FIRST_NUMBER);
        self.moved.push(DeviceMove {
            at: now,
            tenant: account.tenant,
            tap,
            from,
            device,
            ifindex,
            counts,
            cumulative,
        });
    }

    /// Forgets those that have waited longest, where a user has too many.
    pub(super) fn keep(&mut self, limit: Limit, overuse: &mut Excess) {
        if self.moved.len() as u64 <= limit.others {
            return;
        }
        let kept = |moved: &DeviceMove| QuotaItem { tenant: moved.tenant, size: 1, worth: 0 };
        let gone = quota::over_quota(self.moved.iter().map(kept), limit);
        gone.iter().for_each(|at| overuse.add(self.moved[*at].tenant.uid(), "moved devices", 1));
        quota::drop_at(&mut self.moved, &gone);
    }

    /// What had been published of this device when it left where it was, if anybody knows it; `None` when it is not one
    /// that has moved.
    pub(super) fn take(
        &mut self,
        now: f64,
        reading: &DeviceReading<'_>,
        device: Option<u64>,
    ) -> Option<Option<Totals>> {
        self.moved.retain(|moved| now - moved.at <= KEEP_ELSEWHERE);
        let is_it = |moved: &DeviceMove| {
            let is_young = now - moved.at <= PATIENCE;
            let is_named = moved.tap == reading.nic.tap;
            let same = match (moved.ifindex, reading.ifindex) {
                (0, _) | (_, 0) => is_named && is_young,
                (then, now) => then == now && (is_named || is_young),
            };
            let same = match moved.device.zip(device) {
                _ if moved.from != reading.nic.netns => same,
                // It may be back, and nobody saw where it was.
                Some((then, now)) if reading.nic.netns.is_none() => then == now,
                _ => same && is_named,
            };
            let (rx, tx) = &moved.counts;
            same && !decreased(&reading.rx, rx) && !decreased(&reading.tx, tx)
        };
        let at = self.moved.iter().position(is_it)?;
        let cumulative = self.moved.remove(at).cumulative;
        Some(cumulative.map(|Totals { rx, tx, .. }| Totals { rx, tx, ebpf: None }))
    }
}

fn nobody() -> Tenant {
    Tenant::Other(None)
}
