//! Bounds the memory for devices and VMs that are gone.

use std::mem;

use super::{Continuity, DeviceAccount};
use crate::manager::quota::{self, Limit, QuotaItem};
use crate::model::{DeviceId, Excess, Tenant};

/// The number of each that is kept: sums of terminated VMs, moving devices, and accounts in other namespaces without a
/// VM.
const KEPT: Limit = Limit { trusted: 1 << 16, others: 4096 };

impl Continuity {
    /// Forgets items of users beyond their quota. Present devices and VMs do not count.
    pub(super) fn keep_within_limits(&mut self, now: f64) {
        let Self { accounts, sums, moves, overuse, .. } = self;
        let tick = self.tick;
        sums.keep(KEPT, now, overuse);
        moves.keep(KEPT, overuse);
        if accounts.len() as u64 <= KEPT.others {
            return;
        }
        let is_left = |(_, account): &(&DeviceId, &DeviceAccount)| {
            account.nic.netns.is_some() && account.last_tick != tick
        };
        let left: Vec<_> = accounts
            .iter()
            .filter(is_left)
            .map(|(device, account)| (*device, account.tenant, account.last_seen))
            .collect();
        let kept = |(_, tenant, last_seen): &(DeviceId, Tenant, f64)| QuotaItem {
            tenant: *tenant,
            size: 1,
            worth: *last_seen as u64,
        };
        for at in quota::over_quota(left.iter().map(kept), KEPT) {
            let (device, tenant, _) = &left[at];
            overuse.add(tenant.uid(), "device accounts", 1);
            accounts.remove(device);
            self.changed = true;
        }
    }

    /// Takes the number of forgotten items, by user.
    pub(in crate::manager) fn take_overuse(&mut self) -> Excess {
        mem::take(&mut self.overuse)
    }
}
