//! What one tick changes on the TAPs of a load.

use std::mem;

use crate::model::{DeviceId, Nic, Tenant, in_turns};

/// An index with its device and name.
pub(crate) type NewTap = (u32, DeviceId, Nic);

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

    /// Trusted users' first, then one of each user after the other.
    pub(crate) fn take_turns(&mut self, tenant: impl Fn(&Nic) -> Tenant, turn: usize) {
        let new = mem::take(&mut self.new);
        self.new = in_turns(new.into_iter().map(|new| (tenant(&new.2), new)), turn);
    }
}
