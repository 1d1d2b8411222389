//! Limits the files that a tick opens for untrusted users.

use std::collections::{HashMap, HashSet};

use super::Turn;

/// Files for all of them: threads that are new, and their names. The next ticks go on.
pub(super) const OF_STRANGERS: usize = 2048;

/// The least share of a user, for any number of users.
const FEWEST: usize = 16;

#[derive(Debug)]
pub(super) struct Opens {
    left: usize,
    share: usize,
    /// The rest of the share, by user.
    of_users: HashMap<Option<u32>, usize>,
}

impl Opens {
    pub(super) fn new(left: usize, turns: &[Turn]) -> Self {
        let strangers = turns.iter().filter(|turn| !turn.allowance.is_trusted);
        let users: HashSet<Option<u32>> = strangers.map(|turn| turn.uid).collect();
        let share = (left / users.len().max(1)).max(FEWEST);
        Self { left, share, of_users: HashMap::new() }
    }

    pub(super) fn allow(&self, turn: &mut Turn) {
        turn.allowance.opens = if turn.allowance.is_trusted { usize::MAX } else { self.of(turn.uid) };
    }

    /// Deducts the opened files. Returns whether the process had its turn: the next tick begins with the one after it.
    pub(super) fn take(&mut self, turn: &Turn) -> bool {
        if turn.allowance.is_trusted {
            return false;
        }
        let allowed = self.of(turn.uid);
        let used = allowed.saturating_sub(turn.allowance.opens);
        self.left -= used;
        *self.of_users.entry(turn.uid).or_insert(self.share) -= used;
        allowed > 0
    }

    fn of(&self, uid: Option<u32>) -> usize {
        self.of_users.get(&uid).copied().unwrap_or(self.share).min(self.left)
    }
}
