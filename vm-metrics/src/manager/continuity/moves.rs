//! Remembers devices on their way to another network namespace. Such a device goes on counting there. Its counts so far
//! are published already, so its next account begins at them.

use serde::{Deserialize, Serialize};

use super::totals::{Totals, decreased};
use super::{DeviceAccount, DeviceReading, KEEP_ELSEWHERE};
use crate::manager::quota::{self, Limit, QuotaItem};
use crate::model::{Excess, FrameCounts, Tenant};
use crate::net::moved_device::MovedDevice;

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
    #[serde(flatten)]
    device: MovedDevice,
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
        let device = MovedDevice::new(&account.nic, &account.device, ifindex);
        let (tenant, counts) = (account.tenant, account.counts);
        self.moved.push(DeviceMove { at: now, tenant, device, counts, cumulative });
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
    pub(super) fn take(&mut self, now: f64, reading: &DeviceReading<'_>) -> Option<Option<Totals>> {
        self.moved.retain(|moved| now - moved.at <= KEEP_ELSEWHERE);
        let is_it = |moved: &DeviceMove| {
            let (rx, tx) = &moved.counts;
            let is_recent = now - moved.at <= PATIENCE;
            let same = moved.device.is(reading.nic, &reading.device, is_recent);
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
