//! Limits how many sockets are asked at once, per user and in all.

use std::collections::HashMap;
use std::time::Duration;

use super::{PolledVmm, Target};
use crate::model::fair_share;

/// Each is an open file, and a little work for a VMM. The rest is asked in the next ticks.
const MAX_UNDER_WAY: u64 = 32;

/// Of VMMs of users who are not trusted, beside those: each may send as much as an answer may have.
const OTHERS_UNDER_WAY: u64 = 16;

/// How many more sockets may be asked now.
pub struct PollBudget {
    trusted: u64,
    others: u64,
    /// The most that one user who is not trusted may have under way.
    share: u64,
    /// Requests of those users under way.
    users: HashMap<Option<u32>, u64>,
}

impl PollBudget {
    pub fn of(known: &HashMap<Target, PolledVmm>, now: Duration) -> Self {
        let mut room =
            Self { trusted: MAX_UNDER_WAY, others: OTHERS_UNDER_WAY, share: 0, users: HashMap::new() };
        let mut demands: HashMap<_, u64> = HashMap::new();
        for known in known.values() {
            if known.under_way {
                room.take(known);
            }
            if !known.is_trusted && (known.under_way || known.is_due(now)) {
                *demands.entry(known.uid).or_default() += 1;
            }
        }
        // Each of too many users has one in turn: the longest wait is due first.
        room.share = fair_share(OTHERS_UNDER_WAY, demands.into_values()).max(1);
        room
    }

    pub fn has_room_for(&self, known: &PolledVmm) -> bool {
        match known.is_trusted {
            true => self.trusted > 0,
            false => self.others > 0 && self.users.get(&known.uid).is_none_or(|count| *count < self.share),
        }
    }

    pub fn take(&mut self, known: &PolledVmm) {
        let left = if known.is_trusted { &mut self.trusted } else { &mut self.others };
        *left = left.saturating_sub(1);
        *self.users.entry(known.uid).or_default() += 1;
    }
}
