//! Schedules the queries to a VMM.

use std::time::Duration;

/// vCPUs and memory change rarely, and to answer is work: Firecracker even writes a line into its log.
const REFRESH: Duration = Duration::from_secs(30);

/// After the first answer that is not the last word, or the first failure; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// A VMM that hangs is not asked for ever.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    next: Duration,
    /// Answers that were not the last word, or failures, in a row.
    in_a_row: u32,
    ended: bool,
}

impl Schedule {
    /// It was never asked, or has never ended to be asked.
    pub fn is_new(&self) -> bool {
        !self.ended
    }

    pub fn is_due(&self, now: Duration) -> bool {
        now >= self.next
    }

    pub fn next(&self) -> Duration {
        self.next
    }

    /// Something of the VM has changed. One that does not answer is left in peace all the same.
    pub fn hasten(&mut self, now: Duration) {
        if self.in_a_row == 0 {
            self.next = now;
        }
    }

    pub fn answered(&mut self, now: Duration, unfinished: bool) {
        if unfinished {
            self.pause(now, REFRESH);
        } else {
            *self = Self { next: now + REFRESH, in_a_row: 0, ended: true };
        }
    }

    pub fn failed(&mut self, now: Duration) {
        self.pause(now, LONGEST_PAUSE);
    }

    fn pause(&mut self, now: Duration, longest: Duration) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.in_a_row.min(16)).min(longest);
        *self = Self { next: now + pause, in_a_row: self.in_a_row.saturating_add(1), ended: true };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A VMM that answers is asked at regular intervals.
    #[test]
    fn failures_make_the_pauses_longer() {
        let mut schedule = Schedule::default();
        let mut now = Duration::ZERO;
        assert!(schedule.is_due(now) && schedule.is_new());
        schedule.answered(now, false);
        assert!(!schedule.is_new() && !schedule.is_due(REFRESH - Duration::from_millis(1)));
        assert!(schedule.is_due(REFRESH));
        schedule.hasten(now);
        assert!(schedule.is_due(now));

        let mut pauses = |step: fn(&mut Schedule, Duration)| -> Vec<u64> {
            let mut pause = |_| {
                step(&mut schedule, now);
                schedule.hasten(now);
                let pause = schedule.next() - now;
                now = schedule.next();
                pause.as_secs()
            };
            (0..11).map(&mut pause).collect()
        };
        assert_eq!(pauses(Schedule::failed), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(pauses(|schedule, now| schedule.answered(now, false))[0], 0, "hastened");
        let unfinished = pauses(|schedule, now| schedule.answered(now, true));
        assert_eq!(unfinished, [1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30]);
    }
}
