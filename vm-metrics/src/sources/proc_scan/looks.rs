//! Limits the time of looks at processes of untrusted users.

use std::collections::HashMap;
use std::time::Duration;

/// The burst of one user.
const USER_BURST: Duration = Duration::from_millis(60);

/// The burst of all these users together.
const BURST: Duration = Duration::from_millis(120);

/// The burst of the first scan, which finds all VMs of a host.
const FIRST_BURST: Duration = Duration::from_secs(2);

/// In a second, one user may use one of so many.
const USER_RATE: u32 = 20;

/// In a second, all these users together may use one of so many.
const RATE: u32 = 10;

/// For which looks the time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimePool {
    Vms,
    /// Looks for VMs of KVM, which may find nothing.
    Kvm,
}

/// Time that was used and is not paid for yet. It goes down as time passes.
#[derive(Debug)]
pub struct LookBudget {
    /// How many times over a look is paid for.
    cost: u32,
    now: Duration,
    is_first: bool,
    by_user: HashMap<Option<u32>, Duration>,
    all: Duration,
}

impl Default for LookBudget {
    fn default() -> Self {
        Self::of_cost(1)
    }
}

impl LookBudget {
    pub fn of_cost(cost: u32) -> Self {
        Self { cost, now: Duration::ZERO, is_first: false, by_user: HashMap::new(), all: Duration::ZERO }
    }

    /// Begins a call, at the time since any fixed moment.
    pub fn begin(&mut self, now: Duration, is_first: bool) {
        let passed = now.saturating_sub(self.now);
        (self.now, self.is_first) = (now, is_first);
        self.all = self.all.saturating_sub(passed / RATE);
        self.by_user.retain(|_, used| {
            *used = used.saturating_sub(passed / USER_RATE);
            !used.is_zero()
        });
    }

    /// Whether there is time for a look at a process of this user.
    pub fn is_room(&self, uid: Option<u32>) -> bool {
        let used = self.by_user.get(&uid).copied().unwrap_or_default();
        if self.is_first { self.all < FIRST_BURST } else { self.all < BURST && used < USER_BURST }
    }

    pub fn used(&mut self, uid: Option<u32>, time: Duration) {
        let time = time * self.cost;
        // At the first scan all VMs are new: no user pays for them later.
        if !self.is_first {
            *self.by_user.entry(uid).or_default() += time;
        }
        self.all += time;
    }

    /// Ends the first call.
    pub fn end(&mut self) {
        if self.is_first {
            self.all = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_busy_user_leaves_time_for_others() {
        let mut looks = LookBudget::default();
        looks.begin(SECOND, false);
        looks.used(Some(1), USER_BURST);
        assert!(!looks.is_room(Some(1)) && looks.is_room(Some(2)));
        looks.used(Some(2), BURST - USER_BURST);
        assert!(!looks.is_room(Some(3)), "all of it is used");
        looks.begin(2 * SECOND, false);
        assert!(looks.is_room(Some(3)) && looks.is_room(Some(1)));
    }

    #[test]
    fn looks_at_some_cost_are_paid_several_times() {
        let mut looks = LookBudget::of_cost(2);
        looks.begin(SECOND, false);
        looks.used(Some(1), USER_BURST / 2);
        assert!(!looks.is_room(Some(1)) && looks.is_room(Some(2)));
    }

    #[test]
    fn a_long_look_is_paid_for_later() {
        let mut looks = LookBudget::default();
        looks.begin(SECOND, false);
        looks.used(Some(1), SECOND / 2);
        looks.begin(3 * SECOND, false);
        assert!(!looks.is_room(Some(1)));
        looks.begin(12 * SECOND, false);
        assert!(looks.is_room(Some(1)));
    }

    #[test]
    fn the_first_call_may_look_at_all() {
        let mut looks = LookBudget::default();
        looks.begin(SECOND, true);
        looks.used(Some(1), SECOND);
        assert!(looks.is_room(Some(1)));
        looks.end();
        looks.begin(SECOND, false);
        assert!(looks.is_room(Some(1)));
    }
}
