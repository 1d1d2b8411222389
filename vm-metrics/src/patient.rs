//! Reads files that other processes can block, on threads that may hang.
//!
//! Any user can make a process whose files in procfs block every reader. One thread of it waits for a FUSE server with
//! the memory lock held, and another thread executes a program. Then `cmdline` and `smaps_rollup` wait for the memory.
//! `stat`, `exe`, `io` and the links of `fd` wait for the end of the exec. Only the end of the process ends such a wait.

mod patience;
mod worker;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use self::patience::Patience;
use self::worker::{QueueState, QueuedJob, ReturnMark, WorkQueue, work};
use crate::model::Excess;

/// Limit of hung threads for one user. At the limit, no process of this user is read until a thread returns.
const MAX_STUCK_OF_USER: usize = 4;

/// Limit of hung threads in all. At the limit, only processes of trusted users are read.
const MAX_STUCK: usize = 256;

/// A read needs little more than a buffer for one file.
const STACK_BYTES: usize = 256 << 10;

/// One read of one process.
#[derive(Debug)]
pub struct Job<Q> {
    pub pid: u32,
    pub uid: Option<u32>,
    pub is_trusted: bool,
    pub question: Q,
}

/// The result of a job.
#[derive(Debug)]
pub struct Reply<A> {
    /// `None` if the read hangs, now or since an earlier call, or if the user had no time left. The process may still exist.
    pub answer: Option<A>,
    /// Duration of the read, or of the wait for it.
    pub took: Duration,
}

/// Does reads one after the other, and gives up those that hang.
pub struct Patient<Q, A> {
    name: &'static str,
    trusted: Patience,
    others: Patience,
    read: Arc<dyn Fn(Q) -> A + Send + Sync>,
    shared: Arc<WorkQueue<Q, A>>,
    worker: Option<Worker>,
    stuck: Vec<StuckThread>,
    calls: u64,
    /// The last call that answered for each process of an untrusted user. The process that waits longest comes first.
    answered: HashMap<u32, u64>,
    overuse: Excess,
}

impl<Q, A> fmt::Debug for Patient<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patient")
            .field("name", &self.name)
            .field("stuck", &self.stuck)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Worker {
    returned: Arc<AtomicBool>,
}

/// A thread that hangs in the read of this process.
#[derive(Debug)]
struct StuckThread {
    pid: u32,
    uid: Option<u32>,
    returned: Arc<AtomicBool>,
}

impl<Q: Send + 'static, A: Send + 'static> Patient<Q, A> {
    /// Calls `read` on a thread of this name. A thread without progress for `patience` is given up.
    pub fn new(
        name: &'static str,
        patience: Duration,
        read: impl Fn(Q) -> A + Send + Sync + 'static,
    ) -> Self {
        let state = QueueState {
            generation: 0,
            queue: VecDeque::new(),
            strangers_spent: Duration::ZERO,
            current: None,
            replies: Vec::new(),
        };
        let shared = Arc::new(WorkQueue { state: Mutex::new(state), changed: Condvar::new() });
        Self {
            name,
            trusted: Patience::new(patience),
            others: Patience::new(patience),
            read: Arc::new(read),
            shared,
            worker: None,
            stuck: Vec::new(),
            calls: 0,
            answered: HashMap::new(),
            overuse: Excess::default(),
        }
    }

    /// Sets a shorter time limit for processes of untrusted users.
    pub fn with_patience_for_others(mut self, patience: Duration) -> Self {
        self.others = Patience::new(patience);
        self
    }

    /// Number of threads that hang now.
    pub fn stuck(&mut self) -> usize {
        self.stuck.retain(|stuck| !stuck.returned.load(Ordering::Acquire));
        self.stuck.len()
    }

    /// Answers in the order of the jobs, in a round of its own.
    pub fn each(&mut self, jobs: Vec<Job<Q>>) -> Vec<Option<A>> {
        self.begin_round();
        self.ask(jobs).into_iter().map(|reply| reply.answer).collect()
    }

    /// Begins a round: the next calls of [`ask`](Self::ask) share its whole patience.
    pub fn begin_round(&mut self) {
        self.trusted.begin_round();
        self.others.begin_round();
    }

    /// Replies in the order of the jobs. Jobs of trusted users run first, then the other users take turns.
    pub fn ask(&mut self, jobs: Vec<Job<Q>>) -> Vec<Reply<A>> {
        let subjects: Vec<(u32, Option<u32>, bool)> =
            jobs.iter().map(|job| (job.pid, job.uid, job.is_trusted)).collect();
        let queue = self.in_turns(jobs);
        let mut state = self.shared.lock();
        state.replies = subjects.iter().map(|_| Reply { answer: None, took: Duration::ZERO }).collect();
        (state.queue, state.strangers_spent, state.current) = (queue, Duration::ZERO, None);
        drop(state);
        while self.run() {
            let Some(place) = self.wait() else { break };
            let Some((pid, uid, is_trusted)) = subjects.get(place).copied() else { break };
            self.leave_behind(pid, uid, is_trusted);
        }
        let mut state = self.shared.lock();
        state.queue.clear();
        let replies = mem::take(&mut state.replies);
        drop(state);
        self.note_unanswered(&subjects, &replies);
        replies
    }

    /// Takes the number of readings that each user missed since the last call.
    pub fn take_overuse(&mut self) -> Excess {
        mem::take(&mut self.overuse)
    }

    fn note_unanswered(&mut self, subjects: &[(u32, Option<u32>, bool)], replies: &[Reply<A>]) {
        self.calls += 1;
        let mut answered = HashMap::new();
        for ((pid, uid, is_trusted), Reply { answer, .. }) in subjects.iter().zip(replies) {
            if *is_trusted {
                continue;
            }
            let before = self.answered.get(pid).copied().unwrap_or_default();
            answered.insert(*pid, if answer.is_some() { self.calls } else { before });
            self.overuse.add(*uid, "readings", u64::from(answer.is_none()));
        }
        self.answered = answered;
    }

    /// Trusted users first, then one job of each user after the other.
    fn in_turns(&mut self, jobs: Vec<Job<Q>>) -> VecDeque<QueuedJob<Q>> {
        let mut queue = self.askable(jobs.into_iter().enumerate());
        queue.sort_by_key(|queued| self.answered.get(&queued.job.pid).copied().unwrap_or_default());
        let mut of_user: HashMap<Option<u32>, usize> = HashMap::new();
        let mut turn = |job: &Job<Q>| {
            let turn = of_user.entry(job.uid).or_default();
            *turn += 1;
            if job.is_trusted { 0 } else { *turn }
        };
        let mut queue: Vec<_> = queue.into_iter().map(|queued| (turn(&queued.job), queued)).collect();
        queue.sort_by_key(|(turn, _)| *turn);
        queue.into_iter().map(|(_, queued)| queued).collect()
    }

    /// Leaves out processes that hang, users with too many of them, and users whose patience in this round is used up.
    fn askable(&mut self, jobs: impl Iterator<Item = (usize, Job<Q>)>) -> Vec<QueuedJob<Q>> {
        let is_full = self.stuck() >= MAX_STUCK;
        let pids: HashSet<u32> = self.stuck.iter().map(|stuck| stuck.pid).collect();
        let may_hang = |uid| !is_full && (self.stuck.is_empty() || self.stuck_of(uid) < MAX_STUCK_OF_USER);
        let is_askable = |job: &Job<Q>| {
            let may_wait = self.patience(job.is_trusted).is_left();
            may_wait && !pids.contains(&job.pid) && (job.is_trusted || may_hang(job.uid))
        };
        let jobs = jobs.filter(|(_, job)| is_askable(job));
        jobs.map(|(place, job)| QueuedJob { place, job }).collect()
    }

    fn patience(&self, is_trusted: bool) -> Patience {
        if is_trusted { self.trusted } else { self.others }
    }

    fn stuck_of(&self, uid: Option<u32>) -> usize {
        self.stuck.iter().filter(|stuck| stuck.uid == uid).count()
    }

    /// Makes a worker process the queue; false if no thread can be started.
    fn run(&mut self) -> bool {
        self.shared.changed.notify_all();
        if self.worker.as_ref().is_some_and(|worker| !worker.returned.load(Ordering::Acquire)) {
            return true;
        }
        let returned = Arc::new(AtomicBool::new(false));
        let generation = self.shared.lock().generation;
        let (shared, read) = (Arc::clone(&self.shared), Arc::clone(&self.read));
        let mark = ReturnMark(Arc::clone(&returned));
        let builder = thread::Builder::new().name(self.name.to_owned()).stack_size(STACK_BYTES);
        let spawned = builder.spawn(move || {
            let _mark = mark;
            work(&shared, generation, read.as_ref());
        });
        self.worker = spawned.is_ok().then_some(Worker { returned });
        self.worker.is_some()
    }

    /// Waits until the queue is done, or returns the place of a job that hangs.
    fn wait(&self) -> Option<usize> {
        let mut state = self.shared.lock();
        let mut seen = (usize::MAX, Instant::now());
        loop {
            if state.queue.is_empty() && state.current.is_none() {
                return None;
            }
            let progress = state.queue.len();
            if progress != seen.0 {
                seen = (progress, Instant::now());
            }
            // Without a current job the worker has not begun, so the machine is slow and no read hangs.
            let patience = self.patience(state.current.is_none_or(|current| current.is_trusted)).now();
            let left = patience.saturating_sub(seen.1.elapsed());
            if left.is_zero() {
                if let Some(current) = state.current {
                    return Some(current.place);
                }
                seen.1 = Instant::now();
                continue;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn leave_behind(&mut self, pid: u32, uid: Option<u32>, is_trusted: bool) {
        if let Some(Worker { returned }) = self.worker.take() {
            self.stuck.push(StuckThread { pid, uid, returned });
        }
        let patience = if is_trusted { &mut self.trusted } else { &mut self.others };
        patience.note_hung();
        let may_wait = patience.is_left();
        let may_hang = self.stuck_of(uid) < MAX_STUCK_OF_USER;
        let mut state = self.shared.lock();
        state.generation += 1;
        if let Some(current) = state.current.take()
            && let Some(reply) = state.replies.get_mut(current.place)
        {
            reply.took = current.began.elapsed();
        }
        let mut queue = mem::take(&mut state.queue);
        queue.retain(|queued| may_wait || queued.job.is_trusted != is_trusted);
        // Other processes of this user may hang as well, so other users come first.
        let is_same = |queued: &QueuedJob<Q>| queued.job.uid == uid && !queued.job.is_trusted;
        let (same, others): (VecDeque<_>, VecDeque<_>) = queue.into_iter().partition(is_same);
        state.queue = others.into_iter().chain(same.into_iter().filter(|_| may_hang)).collect();
    }
}

impl<Q, A> Drop for Patient<Q, A> {
    fn drop(&mut self) {
        self.shared.lock().generation += 1;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
