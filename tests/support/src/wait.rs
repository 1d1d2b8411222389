//! Waiting for a condition with a deadline, never just for a time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// For what takes milliseconds on a quiet machine; the machine is not always quiet.
pub const SOON: Duration = Duration::from_secs(20);

/// Asks `poll` again and again until it gives a value, or an error, or the deadline passes.
pub fn wait_until<T>(
    deadline: Duration,
    what: &str,
    mut poll: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = poll()? {
            return Ok(value);
        }
        if start.elapsed() >= deadline {
            bail!("waited {deadline:?} in vain for {what}");
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_until_there_is_a_value() {
        let mut asked = 0;
        let got = wait_until(SOON, "three", || {
            asked += 1;
            Ok((asked == 3).then_some(asked))
        });
        assert_eq!(got.unwrap(), 3);
    }

    #[test]
    fn says_what_it_waited_for() {
        let error = wait_until::<()>(Duration::ZERO, "the moon", || Ok(None)).unwrap_err();
        assert!(error.to_string().contains("the moon"), "{error}");
    }
}
