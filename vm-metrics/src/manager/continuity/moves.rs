//! Remembers devices on their way to another network namespace. Such a device goes on counting there. Its counts so far
//! are published already, so its next account begins at them.

use serde::{Deserialize, Serialize};

use super::totals::{Totals, decreased};
use super::{DeviceAccount, DeviceReading, KEEP_ELSEWHERE};
use crate::manager::quota::{self, Limit, QuotaItem};
use crate::model::{Excess, FIRST_NUMBER, FrameCounts, Tenant};

/// How long a moved device is recognised by its index alone, or by its name alone where the index is not known, in
/// seconds. Its VM may have to wait for a scan of all processes. After that, both must match: it may wait for its next
/// VM in an unwatched namespace.
const PATIENCE: f64 = 120.0;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct Moves {
    moved: Vec<DeviceMove>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct DeviceMove {
    at: f64,
    /// Not known of a move that a daemon before this one saved.
    #[serde(skip, default = "nobody")]
    tenant: Tenant,
    tap: String,
    from: Option<u64>,
    /// The number that the kernel gives to no other device of this process's own namespace. It is the same when the
    /// device is back.
    #[serde(default)]
    device: Option<u64>,
    /// The index in the new namespace; 0 where the kernel does not give it.
    ifindex: u32,
    /// The device's own counts at the move, guest perspective: rx and tx.
    #[serde(rename = "raw")]
    counts: (FrameCounts, FrameCounts),
    /// All published counts of it, of all owners; `None` where a daemon before this one published them.
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

    /// Forgets the oldest moves of a user who has too many.
    pub(super) fn keep(&mut self, limit: Limit, overuse: &mut Excess) {
        if self.moved.len() as u64 <= limit.others {
            return;
        }
        let kept = |moved: &DeviceMove| QuotaItem { tenant: moved.tenant, size: 1, worth: 0 };
        let gone = quota::over_quota(self.moved.iter().map(kept), limit);
        gone.iter().for_each(|at| overuse.add(self.moved[*at].tenant.uid(), "moved devices", 1));
        quota::drop_at(&mut self.moved, &gone);
    }

    /// Returns the published counts of a device that has moved here, if they are known; `None` for any other device.
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
                // It is back from an unwatched namespace.
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
