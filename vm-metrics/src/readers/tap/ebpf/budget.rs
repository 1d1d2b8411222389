//! How long ticks may load, attach and detach.

use std::time::{Duration, Instant};

use crate::model::Tenant;

/// Attaching one TAP by TCX takes about 20 ms, and so does detaching it; meanwhile the kernel holds its lock on network
/// configuration. So a tick does either no longer than this, in all namespaces together, and a later one goes on.
const AT_ONCE: Duration = Duration::from_millis(200);

/// One part of the time in so many: ticks that are called for come as often as every 50 ms.
const SHARE: u32 = 5;

/// What users who are not trusted leave of it.
const KEPT: Duration = Duration::from_millis(60);

/// Of one kind of work.
#[derive(Debug)]
pub(crate) struct Budget {
    left: Duration,
    /// What is not to be spent now.
    kept: Duration,
    at: Instant,
}

impl Budget {
    pub(crate) fn full() -> Self {
        Self { left: AT_ONCE, kept: Duration::ZERO, at: Instant::now() }
    }

    /// At the beginning of a tick.
    pub(crate) fn refill(&mut self) {
        let passed = self.at.elapsed();
        self.at = Instant::now();
        self.left = AT_ONCE.min(self.left + passed / SHARE);
        self.kept = Duration::ZERO;
    }

    /// Users who are not trusted leave something: then the VM of a trusted one waits for no refill.
    pub(crate) fn keep_for(&mut self, tenant: Tenant) {
        self.kept = if tenant.is_trusted() { Duration::ZERO } else { KEPT };
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.left <= self.kept
    }

    /// `None`, and nothing is done, when there is no time left.
    pub(crate) fn spend<T>(&mut self, work: impl FnOnce() -> T) -> Option<T> {
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
        let mut budget = Budget { left: Duration::from_millis(1), ..Budget::full() };
        assert_eq!(budget.spend(|| 7), Some(7));
        budget.spend(|| std::thread::sleep(Duration::from_millis(2)));
        assert!(budget.is_spent() && budget.spend(|| 7).is_none());
        budget.at -= 10 * AT_ONCE;
        budget.refill();
        assert_eq!(budget.left, AT_ONCE, "never more");
    }

    #[test]
    fn strangers_leave_something_for_trusted_users() {
        let mut budget = Budget { left: KEPT, ..Budget::full() };
        budget.keep_for(Tenant::Other(Some(1000)));
        assert_eq!(budget.spend(|| 7), None);
        budget.keep_for(Tenant::Trusted);
        assert_eq!(budget.spend(|| 7), Some(7));
    }
}
