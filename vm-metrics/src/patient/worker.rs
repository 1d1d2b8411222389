//! The worker thread of a caller, and the queue that both share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Job, Reply};

/// Time that one call spends on untrusted users. A process can slow each read down, for example by 65 536 groups in its
/// `status`.
pub(super) const TIME_OF_STRANGERS: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct WorkQueue<Q, A> {
    pub(super) state: Mutex<QueueState<Q, A>>,
    /// The worker waits for jobs, and the caller for their end.
    pub(super) changed: Condvar,
}

#[derive(Debug)]
pub(super) struct QueueState<Q, A> {
    /// Only the worker of this generation takes jobs; a worker that was given up ends when its read returns.
    pub(super) generation: u64,
    pub(super) queue: VecDeque<QueuedJob<Q>>,
    /// Time that reads of untrusted users took in this call.
    pub(super) strangers_spent: Duration,
    pub(super) current: Option<CurrentRead>,
    pub(super) replies: Vec<Reply<A>>,
}

/// The read that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct CurrentRead {
    pub(super) place: usize,
    pub(super) began: Instant,
    pub(super) is_trusted: bool,
}

#[derive(Debug)]
pub(super) struct QueuedJob<Q> {
    /// Its index among the replies.
    pub(super) place: usize,
    pub(super) job: Job<Q>,
}

impl<Q, A> QueueState<Q, A> {
    fn next(&mut self) -> Option<QueuedJob<Q>> {
        let next = self.queue.pop_front()?;
        if !next.job.is_trusted && self.strangers_spent >= TIME_OF_STRANGERS {
            self.queue.clear();
            return None;
        }
        Some(next)
    }
}

impl<Q, A> WorkQueue<Q, A> {
    /// No holder of the lock panics.
    pub(super) fn lock(&self) -> MutexGuard<'_, QueueState<Q, A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks the end of a thread, also by a panic.
pub(super) struct ReturnMark(pub(super) Arc<AtomicBool>);

impl Drop for ReturnMark {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

pub(super) fn work<Q, A>(shared: &WorkQueue<Q, A>, generation: u64, read: &(dyn Fn(Q) -> A + Send + Sync)) {
    let mut state = shared.lock();
    while state.generation == generation {
        let Some(QueuedJob { place, job }) = state.next() else {
            shared.changed.notify_all();
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let (began, is_trusted) = (Instant::now(), job.is_trusted);
        state.current = Some(CurrentRead { place, began, is_trusted });
        drop(state);
        let answer = read(job.question);
        let took = began.elapsed();
        state = shared.lock();
        if state.generation == generation {
            state.current = None;
            if !is_trusted {
                state.strangers_spent += took;
            }
            // The call that asked may be over.
            if let Some(reply) = state.replies.get_mut(place) {
                *reply = Reply { answer: Some(answer), took };
            }
        }
    }
}
