//! The tick thread: one snapshot per interval, on a watch channel.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Manager;
use crate::model::Snapshot;

/// The latest snapshot; `None` before the first tick has ended.
pub type Ticker = watch::Receiver<Option<Arc<Snapshot>>>;

/// Runs a [`Manager`] until it is dropped.
#[derive(Debug)]
pub struct TickThread {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TickThread {
    pub fn spawn(mut manager: Manager, interval: Duration) -> io::Result<(Self, Ticker)> {
        let (snapshots, ticker) = watch::channel(None);
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new().name("tick".to_owned()).spawn(move || {
            let mut clock = Clock::new(interval);
            loop {
                snapshots.send_replace(Some(manager.tick(clock.late)));
                match stopped.recv_timeout(clock.until_next()) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        })?;
        Ok((Self { stop: Some(stop), thread: Some(thread) }, ticker))
    }
}

impl Drop for TickThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the tick thread panicked");
        }
    }
}

/// Ticks at fixed moments, however long a tick takes; moments that passed meanwhile are left out and counted.
#[derive(Debug)]
struct Clock {
    interval: Duration,
    next: Instant,
    late: u64,
}

impl Clock {
    fn new(interval: Duration) -> Self {
        Self { interval, next: Instant::now(), late: 0 }
    }

    fn until_next(&mut self) -> Duration {
        self.advance(Instant::now())
    }

    fn advance(&mut self, now: Instant) -> Duration {
        self.next += self.interval;
        if self.next < now {
            self.late += 1;
            self.next = now;
        }
        self.next - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_keep_their_moments_and_late_ones_are_counted() {
        let second = Duration::from_secs(1);
        let mut clock = Clock::new(second);
        let start = clock.next;
        assert_eq!(clock.advance(start + second / 4), second * 3 / 4);
        assert_eq!(clock.advance(start + second * 5 / 4), second * 3 / 4);
        assert_eq!(clock.late, 0);
        assert_eq!(clock.advance(start + second * 7), Duration::ZERO);
        assert_eq!(clock.late, 1);
        assert_eq!(clock.advance(start + second * 7), second);
    }
}
