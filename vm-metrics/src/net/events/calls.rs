//! How often each user's events may call for a tick before its time.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// Calls of one user: three at once, then one a second.
const OF_USER: Rate = Rate { burst: 3, refill: Duration::from_secs(1) };

/// Calls of all users together who are not trusted: eight at once, then four a second.
const OF_ALL: Rate = Rate { burst: 8, refill: Duration::from_millis(250) };

/// Users that are remembered before those with a full bucket are forgotten.
const MAX_USERS: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    /// The time after which one more call is free.
    refill: Duration,
}

/// Token buckets. A call that comes too early is owed, and made as soon as it may be.
#[derive(Debug)]
pub(crate) struct Calls {
    users: HashMap<u32, Bucket>,
    all: Bucket,
    owed: BTreeSet<u32>,
}

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    calls: u32,
    /// When the last call was added to those that are free.
    at: Instant,
}

impl Calls {
    pub(crate) fn new(now: Instant) -> Self {
        Self { users: HashMap::new(), all: Bucket::full(OF_ALL, now), owed: BTreeSet::new() }
    }

    /// Something has happened to this user's VMs.
    pub(crate) fn owe(&mut self, user: u32) {
        if self.owed.len() < MAX_USERS {
            self.owed.insert(user);
        }
    }

    /// Whether a tick may be called for now: it is one for all users whose turn it is.
    pub(crate) fn may_call(&mut self, now: Instant) -> bool {
        if self.owed.is_empty() || !self.all.has_one(now) {
            return false;
        }
        if self.users.len() > MAX_USERS {
            self.users.retain(|_, bucket| !bucket.is_full(now));
        }
        let users = &mut self.users;
        let before = self.owed.len();
        self.owed.retain(|user| {
            let bucket = users.entry(*user).or_insert_with(|| Bucket::full(OF_USER, now));
            !bucket.take(now)
        });
        self.owed.len() < before && self.all.take(now)
    }
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self { rate, calls: rate.burst, at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let has_one = self.has_one(now);
        self.calls -= u32::from(has_one);
        has_one
    }

    fn has_one(&mut self, now: Instant) -> bool {
        while self.calls < self.rate.burst && now >= self.at + self.rate.refill {
            self.calls += 1;
            self.at += self.rate.refill;
        }
        if self.calls == self.rate.burst {
            self.at = now;
        }
        self.calls > 0
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.has_one(now) && self.calls == self.rate.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often ticks are called for in ten seconds, when these users have something every millisecond.
    fn calls_in_ten_seconds(users: u32) -> u32 {
        let start = Instant::now();
        let mut calls = Calls::new(start);
        let call = |at: u64| {
            (0..users).for_each(|user| calls.owe(user));
            u32::from(calls.may_call(start + Duration::from_millis(at)))
        };
        (0..10_000).map(call).sum()
    }

    #[test]
    fn one_user_calls_once_a_second() {
        assert_eq!(calls_in_ten_seconds(1), 3 + 9);
    }

    #[test]
    fn all_users_together_are_bounded() {
        assert!(calls_in_ten_seconds(1000) <= 8 + 40);
    }

    #[test]
    fn an_early_call_is_made_later() {
        let start = Instant::now();
        let mut calls = Calls::new(start);
        for _ in 0..3 {
            calls.owe(1000);
            assert!(calls.may_call(start));
        }
        calls.owe(1000);
        assert!(!calls.may_call(start));
        assert!(!calls.may_call(start + Duration::from_millis(900)));
        calls.owe(1001);
        assert!(calls.may_call(start), "another user waits for nobody");
        assert!(calls.may_call(start + Duration::from_secs(1)));
        assert!(!calls.may_call(start + Duration::from_secs(5)), "nothing is owed any more");
    }
}
