//! Schedules the looks for KVM: often at new processes, rarely at old ones. Pure.

use std::time::Duration;

use super::KvmProgress;

/// A program that only asks what KVM can do is gone within this time.
const PROBE: Duration = Duration::from_secs(1);

/// A thread that is on a CPU at each look for this long is in a vCPU. Other threads are so only by chance.
const BUSY: Duration = Duration::from_secs(4);

/// The longest delay until a VM of an old process is found.
const SLOWEST: Duration = Duration::from_secs(30);

/// A look takes at most one part in so many of the time until the next one.
const SHARE: u32 = 1000;

/// How often a process that is no VM so far is looked at for KVM.
#[derive(Debug)]
pub struct KvmSchedule {
    next: Duration,
    /// The time between the last look and the next one.
    pause: Duration,
    /// Since when a vCPU seems to run.
    runs_since: Option<Duration>,
    /// Whether it held something of KVM at the last look. `None` before the first one.
    holds: Option<bool>,
    is_refused: bool,
    /// A look that has not ended.
    progress: Option<Box<KvmProgress>>,
}

impl KvmSchedule {
    /// Of a process that is new, at the time since any fixed moment.
    pub fn new(now: Duration) -> Self {
        Self {
            next: now,
            pause: Duration::ZERO,
            runs_since: None,
            holds: None,
            is_refused: false,
            progress: None,
        }
    }

    pub fn is_due(&self, now: Duration) -> bool {
        self.next <= now
    }

    /// When the next look is due.
    pub fn next(&self) -> Duration {
        self.next
    }

    /// Whether the look is so late that a VM may be missed for long.
    pub fn is_late(&self, now: Duration) -> bool {
        now.saturating_sub(self.next) > SLOWEST
    }

    pub fn holds(&self) -> bool {
        self.holds == Some(true)
    }

    /// Whether a look has found nothing of KVM.
    pub fn is_none_of_kvm(&self) -> bool {
        self.holds == Some(false)
    }

    pub fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// After a look that found nothing of KVM, or something that runs no vCPU.
    pub fn found_no_vm(&mut self, now: Duration, took: Duration, holds: bool) {
        let took = took + self.progress.as_ref().map_or(Duration::ZERO, |progress| progress.took);
        let pause = if holds { PROBE } else { (2 * self.pause).clamp(PROBE, SLOWEST) };
        *self = Self { holds: Some(holds), pause, ..Self::new(now + pause.max(took * SHARE)) };
    }

    /// After a look that the next call goes on with.
    pub fn goes_on(&mut self, took: Duration, progress: KvmProgress) {
        let before = self.progress.take().map_or(Duration::ZERO, |progress| progress.took);
        self.progress = Some(Box::new(KvmProgress { took: before + took, ..progress }));
    }

    /// The look that has not ended.
    pub fn progress(&self) -> Option<&KvmProgress> {
        self.progress.as_deref()
    }

    pub fn refused(&mut self, now: Duration) {
        *self = Self { is_refused: true, ..Self::new(now + SLOWEST) };
    }

    /// After a look that the process has not answered, or for which its user had no time left.
    pub fn no_answer(&mut self, now: Duration) {
        self.pause = (2 * self.pause).clamp(PROBE, SLOWEST);
        self.next = now + self.pause;
    }

    /// After a look that found a vCPU running, for sure or likely. Whether it has run for longer than a probe.
    pub fn runs(&mut self, now: Duration, is_certain: bool) -> bool {
        let since = *self.runs_since.get_or_insert(now);
        (self.next, self.holds, self.progress) = (now + PROBE, Some(true), None);
        now.saturating_sub(since) >= if is_certain { PROBE } else { BUSY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn looks_at_an_old_process_are_rare() {
        let mut watch = KvmSchedule::new(Duration::ZERO);
        let mut looks = Vec::new();
        for now in (0..120).map(|second| second * SECOND) {
            if watch.is_due(now) {
                looks.push(now.as_secs());
                watch.found_no_vm(now, Duration::ZERO, false);
            }
        }
        assert_eq!(looks, [0, 1, 3, 7, 15, 31, 61, 91]);
        watch.found_no_vm(120 * SECOND, Duration::ZERO, true);
        assert_eq!(watch.next(), 121 * SECOND, "it may start a VM soon");
    }

    #[test]
    fn a_slow_look_is_repeated_later() {
        let mut watch = KvmSchedule::new(Duration::ZERO);
        watch.found_no_vm(SECOND, Duration::from_millis(100), false);
        assert_eq!(watch.next(), 101 * SECOND);
    }

    #[test]
    fn a_probe_runs_for_less_than_a_second() {
        let mut watch = KvmSchedule::new(Duration::ZERO);
        assert!(
            !watch.runs(SECOND, true) && !watch.runs(SECOND * 3 / 2, true) && watch.runs(2 * SECOND, true)
        );
        watch.found_no_vm(3 * SECOND, Duration::ZERO, true);
        assert!(!watch.runs(4 * SECOND, true), "another one");
    }

    #[test]
    fn a_busy_program_is_looked_at_for_longer() {
        let mut watch = KvmSchedule::new(Duration::ZERO);
        let is_vm: Vec<_> = (0..6).map(|second| watch.runs(second * SECOND, false)).collect();
        assert_eq!(is_vm, [false, false, false, false, true, true]);
    }
}
