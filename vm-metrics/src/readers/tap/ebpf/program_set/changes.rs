//! What one tick changes on the TAPs of a load.

use std::cmp::Reverse;
use std::mem;

use crate::model::{DeviceId, Nic, Tenant, in_turns};

/// A TAP that has no programs yet.
#[derive(Debug)]
pub(crate) struct NewTap {
    /// The position of its readings.
    pub(crate) at: usize,
    pub(crate) device: DeviceId,
    pub(crate) nic: Nic,
}

/// What is to be done to the TAPs in this tick.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) gone: Vec<u32>,
    pub(crate) new: Vec<NewTap>,
}

impl Changes {
    pub(crate) fn have_gone(&self) -> bool {
        !self.gone.is_empty()
    }

    pub(crate) fn have_come(&self) -> bool {
        !self.new.is_empty()
    }

    /// Those with the most traffic so far first: the programs see most of what passes then, long before the last attach.
    pub(crate) fn busiest_first(&mut self, packets: impl Fn(usize) -> u64) {
        self.new.sort_by_cached_key(|new| Reverse(packets(new.at)));
    }

    /// Trusted users' first, then one of each user after the other.
    pub(crate) fn take_turns(&mut self, tenant: impl Fn(&Nic) -> Tenant, turn: usize) {
        let new = mem::take(&mut self.new);
        self.new = in_turns(new.into_iter().map(|new| (tenant(&new.nic), new)), turn);
    }
}
