//! Runs ticks on a thread: one snapshot per interval, on a watch channel.

mod clock;

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use clock::Clock;

use super::Manager;
use crate::model::Snapshot;

/// A snapshot older than this many intervals means that ticks hang, unless it is younger than [`MIN_STALE`].
const STALE_INTERVALS: u32 = 10;

/// A busy host may delay a few short ticks.
const MIN_STALE: Duration = Duration::from_secs(30);

/// Runs a [`Manager`] until it is dropped. Dropping does not wait for the running tick, which may hang.
///
/// ```
/// use std::time::Duration;
/// use vm_metrics::{Manager, TickThread};
///
/// let (ticks, ticker) = TickThread::spawn(Manager::new(), Duration::from_secs(1))?;
/// while ticker.latest().is_none() {
///     std::thread::yield_now();
/// }
/// drop(ticks);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct TickThread {
    /// The thread ends when all of these are gone.
    calls: Arc<mpsc::SyncSender<()>>,
}

/// Calls for a tick before its time.
#[derive(Clone, Debug)]
pub struct Waker {
    calls: Weak<mpsc::SyncSender<()>>,
}

impl Waker {
    /// Calls for a tick before its time. Waits for nothing.
    pub fn wake(&self) {
        if let Some(calls) = self.calls.upgrade() {
            // One unanswered call is enough, and at the end no call is answered.
            let _ = calls.try_send(());
        }
    }
}

impl TickThread {
    /// # Errors
    /// When there can be no more threads.
    pub fn spawn(manager: Manager, interval: Duration) -> io::Result<(Self, Ticker)> {
        let (snapshots, ticker) = Ticker::new(interval);
        let (calls, called) = mpsc::sync_channel(1);
        thread::Builder::new()
            .name("tick".to_owned())
            .spawn(move || run(snapshots, manager, interval, &called))?;
        Ok((Self { calls: Arc::new(calls) }, ticker))
    }

    /// A handle for callers that notice a change first.
    pub fn waker(&self) -> Waker {
        Waker { calls: Arc::downgrade(&self.calls) }
    }
}

/// The channel is closed last, also by a panic: the manager has released all TAPs by then.
fn run(
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    manager: Manager,
    interval: Duration,
    called: &mpsc::Receiver<()>,
) {
    // Locals go in reverse order.
    let snapshots = snapshots;
    let manager = manager;
    let mut clock = Clock::new(interval, Instant::now());
    loop {
        clock.begin(Instant::now());
        snapshots.send_replace(Some(manager.tick(clock.missed)));
        match called.recv_timeout(clock.until_next(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) => thread::sleep(clock.pause(Instant::now())),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
}

/// Gives the latest snapshot, and whether it is too old.
#[derive(Clone, Debug)]
pub struct Ticker {
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    started: Instant,
    stale_after: Duration,
}

impl Ticker {
    fn new(interval: Duration) -> (watch::Sender<Option<Arc<Snapshot>>>, Self) {
        let (sender, snapshots) = watch::channel(None);
        let stale_after = (interval * STALE_INTERVALS).max(MIN_STALE);
        (sender, Self { snapshots, started: Instant::now(), stale_after })
    }

    /// `None` before the first tick has ended.
    pub fn latest(&self) -> Option<Arc<Snapshot>> {
        self.snapshots.borrow().clone()
    }

    /// Whether the numbers of this snapshot are too old to be shown as present.
    pub fn is_stale(&self, snapshot: &Snapshot) -> bool {
        snapshot.taken.elapsed() > self.stale_after
    }

    /// The time since the last tick ended, when that is too long.
    pub fn hangs(&self) -> Option<Duration> {
        let ended = self.latest().map_or(self.started, |snapshot| snapshot.taken);
        Some(ended.elapsed()).filter(|age| *age > self.stale_after)
    }

    /// Waits for a snapshot that this has not returned yet; `None` when the ticks have ended.
    pub async fn next(&mut self) -> Option<Arc<Snapshot>> {
        loop {
            self.snapshots.changed().await.ok()?;
            if let Some(snapshot) = self.snapshots.borrow_and_update().clone() {
                return Some(snapshot);
            }
        }
    }

    /// Waits for the end of the tick thread.
    pub(crate) async fn ended(&mut self) {
        while self.snapshots.changed().await.is_ok() {}
    }

    /// One that shows this snapshot, for tests; a tick ends with the sender.
    #[cfg(test)]
    pub(crate) fn showing(snapshot: Option<Snapshot>) -> (watch::Sender<Option<Arc<Snapshot>>>, Self) {
        let (sender, ticker) = Self::new(Duration::from_secs(1));
        sender.send_replace(snapshot.map(Arc::new));
        (sender, ticker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_ticks_get_stale_later() {
        let stale_after = |seconds| Ticker::new(Duration::from_secs(seconds)).1.stale_after;
        assert_eq!([1, 3, 60].map(stale_after), [30, 30, 600].map(Duration::from_secs));
    }
}
