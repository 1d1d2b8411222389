//! Waits for a condition with a deadline, never for a fixed time.
//!
//! A deadline counts the time that the machine could give to one more thread. On a busy machine it is later.

use std::fs;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Time limit for steps of milliseconds on a quiet machine.
pub const SOON: Duration = Duration::from_secs(20);

/// The largest factor of a deadline on a busy machine.
const MOST: f64 = 10.0;

/// The factor of an emulated CPU.
const EMULATED: f64 = 4.0;

/// A thread checks its deadline at least in this interval.
const LOOK: Duration = Duration::from_secs(1);

/// Passes when the machine could have given a thread so much time. With four threads for one CPU, a second counts as a
/// quarter.
#[derive(Debug)]
pub struct Deadline {
    left: Duration,
    counted: Instant,
}

impl Deadline {
    pub fn after(time: Duration) -> Self {
        Self { left: time, counted: Instant::now() }
    }

    pub fn has_passed(&mut self) -> bool {
        self.count(slowness());
        self.left.is_zero()
    }

    /// Returns the time until the next check; `None` when the deadline passed.
    pub fn block(&mut self) -> Option<Duration> {
        (!self.has_passed()).then(|| self.left.min(LOOK))
    }

    fn count(&mut self, slowness: f64) {
        let now = Instant::now();
        let passed = now.duration_since(self.counted).div_f64(slowness);
        (self.left, self.counted) = (self.left.saturating_sub(passed), now);
    }
}

/// Scales a time by the present load, for a call with one timeout.
pub fn scaled(time: Duration) -> Duration {
    time.mul_f64(slowness())
}

/// Returns the factor by which this machine is slower than a quiet one.
fn slowness() -> f64 {
    let cpus = thread::available_parallelism().map_or(1, usize::from) as f64;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let emulation = if is_emulated() { EMULATED } else { 1.0 };
    let threads = running(&load).unwrap_or_default() as f64;
    (emulation * (threads / cpus).max(1.0)).min(MOST)
}

/// Whether this machine is a guest with emulated CPUs.
fn is_emulated() -> bool {
    static IS_EMULATED: OnceLock<bool> = OnceLock::new();
    let look = || fs::read_to_string("/proc/cpuinfo").is_ok_and(|cpus| cpus.contains("QEMU TCG CPU"));
    *IS_EMULATED.get_or_init(look)
}

/// Returns the number of threads that run or wait for a CPU.
fn running(loadavg: &str) -> Option<u32> {
    let (running, _) = loadavg.split(' ').nth(3)?.split_once('/')?;
    running.parse().ok()
}

/// Repeats `poll` until it returns a value or an error, or the deadline passes.
pub fn wait_until<T>(
    deadline: Duration,
    what: &str,
    mut poll: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let (start, mut end) = (Instant::now(), Deadline::after(deadline));
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = poll()? {
            return Ok(value);
        }
        if end.has_passed() {
            bail!("waited {:?} in vain for {what}", start.elapsed());
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_until_there_is_a_value() {
        let mut asked = 0;
        let got = wait_until(SOON, "three", || {
            asked += 1;
            Ok((asked == 3).then_some(asked))
        });
        assert_eq!(got.unwrap(), 3);
    }

    #[test]
    fn a_timeout_names_its_condition() {
        let error = wait_until::<()>(Duration::ZERO, "the moon", || Ok(None)).unwrap_err();
        assert!(error.to_string().contains("the moon"), "{error}");
    }

    #[test]
    fn a_deadline_comes_later_on_a_busy_machine() {
        let second = Duration::from_secs(1);
        let passed = |slowness| {
            let mut deadline = Deadline { left: 4 * second, counted: Instant::now() - 4 * second };
            deadline.count(slowness);
            4 * second - deadline.left
        };
        assert_eq!(passed(1.0), 4 * second);
        assert!((second..2 * second).contains(&passed(4.0)), "{:?}", passed(4.0));
        assert!((1.0..=MOST).contains(&slowness()) && scaled(second) >= second);
    }

    #[test]
    fn a_blocked_thread_looks_again() {
        assert_eq!(Deadline::after(Duration::ZERO).block(), None);
        assert_eq!(Deadline::after(60 * SOON).block(), Some(LOOK));
    }

    #[test]
    fn running_threads_are_counted() {
        assert_eq!(running("7.14 8.12 7.59 9/185 18671\n"), Some(9));
        assert_eq!(running(""), None);
    }
}
