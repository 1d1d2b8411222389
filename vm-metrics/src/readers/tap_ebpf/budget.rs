//! How long a tick may attach and detach.

use std::time::{Duration, Instant};

/// Attaching one TAP by TCX takes about 20 ms, and so does detaching it; meanwhile the kernel holds its lock on network
/// configuration. So a tick does either no longer than this, in all namespaces together, and the next tick goes on.
const PER_TICK: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Budget {
    left: Duration,
}

impl Budget {
    pub(super) fn of_a_tick() -> Self {
        Self { left: PER_TICK }
    }

    pub(super) fn is_spent(&self) -> bool {
        self.left.is_zero()
    }

    /// `None`, and nothing is done, when there is no time left.
    pub(super) fn spend<T>(&mut self, work: impl FnOnce() -> T) -> Option<T> {
        if self.is_spent() {
            return None;
        }
        let began = Instant::now();
        let done = work();
        self.left = self.left.saturating_sub(began.elapsed());
        Some(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_spent() {
        let mut budget = Budget { left: Duration::from_millis(1) };
        assert_eq!(budget.spend(|| 7), Some(7));
        budget.spend(|| std::thread::sleep(Duration::from_millis(2)));
        assert!(budget.is_spent() && budget.spend(|| 7).is_none());
    }
}
