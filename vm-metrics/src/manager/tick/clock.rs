//! Keeps the moments of ticks, and counts the missed ones.

use std::time::{Duration, Instant};

use crate::model::MissedTicks;

/// Called ticks come no closer than this: a script that makes a hundred TAPs is not a hundred ticks.
const MIN_PAUSE: Duration = Duration::from_millis(50);

/// Ticks at fixed moments, however long a tick takes; moments that passed meanwhile are left out and counted.
///
/// A tick that is called for comes between two moments and moves neither. It never counts as late, and it makes
/// the next regular tick less late: until one interval after it nothing is missed.
#[derive(Debug)]
pub(super) struct Clock {
    interval: Duration,
    /// The moment of the next regular tick.
    due: Instant,
    /// When the last tick had to begin, or began where it was called for.
    last: Instant,
    pub(super) missed: MissedTicks,
}

impl Clock {
    /// The first tick is due now.
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, due: now, last: now, missed: MissedTicks::default() }
    }

    /// A tick begins: the regular one, when its moment has come.
    pub(super) fn begin(&mut self, now: Instant) {
        if now < self.due {
            self.last = now;
        } else {
            self.last = self.wanted().min(now);
            self.due += self.interval;
        }
    }

    /// A tick has ended: the time until the next regular one.
    pub(super) fn until_next(&mut self, now: Instant) -> Duration {
        if self.due < now {
            let wanted = self.wanted();
            if wanted < now {
                self.missed.ticks += 1;
                self.missed.by += now - wanted;
            }
            self.due = now;
        }
        self.due - now
    }

    /// When the next tick has to begin, so that nothing is missed.
    fn wanted(&self) -> Instant {
        self.due.max(self.last + self.interval)
    }

    /// How long a tick that is called for has to wait: no longer than the regular one, which answers the call as well.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        MIN_PAUSE.min(self.due.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A clock after a regular tick that has just begun.
    fn clock() -> (Clock, Instant) {
        let start = Instant::now();
        let mut clock = Clock::new(SECOND, start);
        clock.begin(start);
        (clock, start)
    }

    #[test]
    fn a_called_tick_moves_no_other() {
        let (mut clock, start) = clock();
        assert_eq!(clock.until_next(start + SECOND / 4), SECOND * 3 / 4);
        clock.begin(start + SECOND / 3);
        assert_eq!(clock.until_next(start + SECOND / 2), SECOND / 2);
        assert_eq!((clock.due, clock.missed.ticks), (start + SECOND, 0));
    }

    #[test]
    fn late_ticks_are_counted() {
        let (mut clock, start) = clock();
        assert_eq!(clock.until_next(start + SECOND / 4), SECOND * 3 / 4);
        clock.begin(start + SECOND);
        assert_eq!(clock.until_next(start + SECOND * 5 / 4), SECOND * 3 / 4);
        assert_eq!(clock.missed, MissedTicks::default());
        clock.begin(start + SECOND * 2);
        assert_eq!(clock.until_next(start + SECOND * 7), Duration::ZERO);
        assert_eq!(clock.missed, MissedTicks { ticks: 1, by: SECOND * 4 });
        clock.begin(start + SECOND * 7);
        assert_eq!(clock.until_next(start + SECOND * 7), SECOND);
    }

    /// Once a tick was late, each tick that was called for counted as late, too.
    #[test]
    fn a_late_tick_is_counted_once() {
        let (mut clock, start) = clock();
        let end = start + SECOND * 3;
        assert_eq!(clock.until_next(end), Duration::ZERO);
        assert_eq!(clock.missed, MissedTicks { ticks: 1, by: SECOND * 2 });
        assert_eq!(clock.pause(end), Duration::ZERO, "the regular tick answers the call");
        for call in 0..10 {
            let began = end + MIN_PAUSE * call;
            clock.begin(began);
            clock.until_next(began + MIN_PAUSE / 2);
        }
        assert_eq!(clock.missed.ticks, 1);
    }

    #[test]
    fn a_call_waits_for_the_regular_tick() {
        let (clock, start) = clock();
        assert_eq!(clock.pause(start), MIN_PAUSE);
        assert_eq!(clock.pause(start + SECOND - MIN_PAUSE / 2), MIN_PAUSE / 2);
    }

    proptest! {
        /// Ticks take a while, some are called for, and the daemon may stand still before any of them.
        #[test]
        fn no_gap_exceeds_the_time_without_ticks(
            ticks in prop::collection::vec((0_u64..3000, 0_u64..1000, any::<bool>(), 0_u64..20), 1..60),
        ) {
            let (mut clock, start) = clock();
            let (mut now, mut begun, mut without) = (start, start, Duration::ZERO);
            for (takes, called_after, is_called, stands_still) in ticks {
                now += Duration::from_millis(takes);
                let wait = clock.until_next(now);
                let called_after = Duration::from_millis(called_after);
                now += if is_called && called_after < wait { called_after } else { wait };
                if is_called && called_after < wait {
                    now += clock.pause(now);
                }
                // Rarely, and then for long.
                now += SECOND * u32::try_from(stands_still.saturating_sub(17)).expect("small");
                without += (now - begun).saturating_sub(SECOND);
                let before = clock.missed;
                clock.begin(now);
                begun = now;
                prop_assert_eq!(clock.missed, before, "a beginning is never late by itself");
            }
            clock.until_next(now);
            prop_assert!(clock.missed.by <= without, "{:?} of {:?}", clock.missed.by, without);
        }
    }
}
