//! The tick thread: one snapshot per interval, on a watch channel.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Manager;
use crate::model::{MissedTicks, Snapshot};

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
///
/// A tick that is called for comes between two moments and moves neither. It never counts as late, and it makes
/// the next regular tick less late: until one interval after it nothing is missed.
#[derive(Debug)]
struct Clock {
    interval: Duration,
    /// The moment of the next regular tick.
    due: Instant,
    /// When the last tick had to begin, or began where it was called for.
    last: Instant,
    missed: MissedTicks,
}

impl Clock {
    /// The first tick is due now.
    fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, due: now, last: now, missed: MissedTicks::default() }
    }

    /// A tick begins: the regular one, when its moment has come.
    fn begin(&mut self, now: Instant) {
        if now < self.due {
            self.last = now;
        } else {
            self.last = self.wanted().min(now);
            self.due += self.interval;
        }
    }

    /// A tick has ended: the time until the next regular one.
    fn until_next(&mut self, now: Instant) -> Duration {
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
    fn pause(&self, now: Instant) -> Duration {
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
    fn a_tick_that_is_called_for_moves_no_other() {
        let (mut clock, start) = clock();
        assert_eq!(clock.until_next(start + SECOND / 4), SECOND * 3 / 4);
        clock.begin(start + SECOND / 3);
        assert_eq!(clock.until_next(start + SECOND / 2), SECOND / 2);
        assert_eq!((clock.due, clock.missed.ticks), (start + SECOND, 0));
    }

    #[test]
    fn ticks_keep_their_moments_and_late_ones_are_counted() {
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
    fn a_call_waits_no_longer_than_the_regular_tick() {
        let (clock, start) = clock();
        assert_eq!(clock.pause(start), MIN_PAUSE);
        assert_eq!(clock.pause(start + SECOND - MIN_PAUSE / 2), MIN_PAUSE / 2);
    }

    proptest! {
        /// Ticks take a while, some are called for, and the daemon may stand still before any of them.
        #[test]
        fn the_gap_is_never_more_than_the_time_without_ticks(
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

    #[test]
    fn slow_ticks_get_stale_later() {
        let stale_after = |seconds| Ticker::new(Duration::from_secs(seconds)).1.stale_after;
        assert_eq!([1, 3, 60].map(stale_after), [30, 30, 600].map(Duration::from_secs));
    }
}
