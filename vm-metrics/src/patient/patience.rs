//! The time that one round waits for reads of one class of users.

use std::time::Duration;

/// Hung reads of one round, for trusted users and for all others. Each halves the time for the next read, so a round
/// waits less than twice its patience. The next round does the remaining reads.
pub(super) const MAX_HUNG_IN_A_ROUND: u32 = 6;

#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    whole: Duration,
    hung: u32,
}

impl Patience {
    pub(super) fn new(whole: Duration) -> Self {
        Self { whole, hung: 0 }
    }

    pub(super) fn begin_round(&mut self) {
        self.hung = 0;
    }

    pub(super) fn note_hung(&mut self) {
        self.hung += 1;
    }

    pub(super) fn is_left(self) -> bool {
        self.hung < MAX_HUNG_IN_A_ROUND
    }

    /// The time limit of the next read.
    pub(super) fn now(self) -> Duration {
        self.whole / 2_u32.pow(self.hung)
    }
}
