//! The tick thread: one snapshot per interval, on a watch channel.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Manager;
use crate::model::{Late, Snapshot};

/// A snapshot older than this many intervals says that the ticks hang, unless it is younger than [`MIN_STALE`].
const STALE_INTERVALS: u32 = 10;

/// A busy host may delay a few short ticks.
const MIN_STALE: Duration = Duration::from_secs(30);

/// Ticks that are called for come no closer than this: a script that makes a hundred TAPs is not a hundred ticks.
const MIN_PAUSE: Duration = Duration::from_millis(50);

/// Runs a [`Manager`] until it is dropped; it does not wait for the tick that runs then, which may hang.
///
/// ```
/// use std::time::Duration;
/// use vm_metrics::{Manager, manager::TickThread};
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
            // One call that is not answered yet is enough, and nobody answers at the end.
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

    /// For whoever knows first that something has changed.
    pub fn waker(&self) -> Waker {
        Waker { calls: Arc::downgrade(&self.calls) }
    }
}

/// The channel is closed last, also by a panic: from then on nothing is left to wait for, on the TAPs neither.
fn run(
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    manager: Manager,
    interval: Duration,
    called: &mpsc::Receiver<()>,
) {
    // Locals go in reverse order.
    let snapshots = snapshots;
    let manager = manager;
    let mut clock = Clock::new(interval);
    loop {
        snapshots.send_replace(Some(manager.tick(clock.late)));
        match called.recv_timeout(clock.until_next()) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) => {
                clock.called();
                thread::sleep(MIN_PAUSE);
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
}

/// The latest snapshot, and whether it still tells how things are.
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

    /// The numbers of this snapshot are too old to be shown as those of now.
    pub fn is_stale(&self, snapshot: &Snapshot) -> bool {
        snapshot.taken.elapsed() > self.stale_after
    }

    /// How long no tick has ended, when that is too long.
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

/// Ticks at fixed moments, however long a tick takes; moments that passed meanwhile are left out and counted.
#[derive(Debug)]
struct Clock {
    interval: Duration,
    next: Instant,
    late: Late,
}

impl Clock {
    fn new(interval: Duration) -> Self {
        Self { interval, next: Instant::now(), late: Late::default() }
    }

    /// The tick that is called for is one more: the next moment stays.
    fn called(&mut self) {
        self.next -= self.interval;
    }

    fn until_next(&mut self) -> Duration {
        self.advance(Instant::now())
    }

    fn advance(&mut self, now: Instant) -> Duration {
        self.next += self.interval;
        if self.next < now {
            self.late.ticks += 1;
            self.late.by += now - self.next;
            self.next = now;
        }
        self.next - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_that_is_called_for_moves_no_other() {
        let second = Duration::from_secs(1);
        let mut clock = Clock::new(second);
        let start = clock.next;
        assert_eq!(clock.advance(start + second / 4), second * 3 / 4);
        clock.called();
        assert_eq!(clock.advance(start + second / 2), second / 2);
        assert_eq!((clock.next, clock.late.ticks), (start + second, 0));
    }

    #[test]
    fn ticks_keep_their_moments_and_late_ones_are_counted() {
        let second = Duration::from_secs(1);
        let mut clock = Clock::new(second);
        let start = clock.next;
        assert_eq!(clock.advance(start + second / 4), second * 3 / 4);
        assert_eq!(clock.advance(start + second * 5 / 4), second * 3 / 4);
        assert_eq!(clock.late, Late::default());
        assert_eq!(clock.advance(start + second * 7), Duration::ZERO);
        assert_eq!(clock.late, Late { ticks: 1, by: second * 4 });
        assert_eq!(clock.advance(start + second * 7), second);
    }

    #[test]
    fn slow_ticks_get_stale_later() {
        let stale_after = |seconds| Ticker::new(Duration::from_secs(seconds)).1.stale_after;
        assert_eq!([1, 3, 60].map(stale_after), [30, 30, 600].map(Duration::from_secs));
    }
}
