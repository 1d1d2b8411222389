//! What one tick changes on the TAPs of a load.

use std::mem;

use crate::model::{Nic, Tenant, in_turns};

/// What is to be done to the TAPs in this tick.
#[derive(Debug, Default)]
pub(in super::super) struct Changes {
    pub(super) gone: Vec<u32>,
    pub(super) new: Vec<(u32, Nic)>,
}

impl Changes {
    pub(in super::super) fn have_gone(&self) -> bool {
        !self.gone.is_empty()
    }

    pub(in super::super) fn have_come(&self) -> bool {
        !self.new.is_empty()
    }

    /// Trusted users' first, then one of each user after the other.
    pub(in super::super) fn take_turns(&mut self, tenant: impl Fn(&Nic) -> Tenant, turn: usize) {
        let new = mem::take(&mut self.new);
        self.new = in_turns(new.into_iter().map(|new| (tenant(&new.1), new)), turn);
    }
}
