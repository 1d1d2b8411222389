//! Reads what other processes can hold up, on threads that are left behind when they hang.
//!
//! Any user can make a process whose files in procfs do not answer: a thread of it waits for a FUSE server of its own with
//! the lock of its memory held, and another one executes a program meanwhile. `cmdline` and `smaps_rollup` then wait for
//! the memory, `stat`, `exe`, `io` and the links of `fd` for the end of the exec. Such a wait ends with the process only.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::model::Excess;

/// Threads that may hang because of one user. Its other processes are asked no more until one of them returns.
const MAX_STUCK_OF_USER: usize = 4;

/// Threads that may hang in all. Beyond, only processes of trusted users are asked.
const MAX_STUCK: usize = 256;

/// Reads that one round leaves behind, of trusted users and of all others. It waits half as long for each as for the one
/// before, so less than twice the patience in all. What is left is asked in the next round.
const LEFT_BEHIND_IN_A_ROUND: u32 = 6;

/// Time that one call spends on users who are not trusted. A process may make each read take long, for example with a
/// list of 65 536 groups in its `status`.
const TIME_OF_STRANGERS: Duration = Duration::from_millis(50);

/// They read a file into a buffer.
const STACK_BYTES: usize = 256 << 10;

/// A read of something of one process.
#[derive(Debug)]
pub struct Job<Q> {
    pub pid: u32,
    pub uid: Option<u32>,
    pub is_trusted: bool,
    pub question: Q,
}

/// What became of a job.
#[derive(Debug)]
pub struct Reply<A> {
    /// `None` where the process does not answer, now or since an earlier call, or where its user had no time left: that
    /// says nothing about whether it is there.
    pub answer: Option<A>,
    /// How long the read took, or was waited for.
    pub took: Duration,
}

/// How long reads of one kind of users are waited for in a round.
#[derive(Clone, Copy, Debug)]
struct Patience {
    whole: Duration,
    left_behind: u32,
}

/// Does reads one after the other and answers those that end in time.
pub struct Patient<Q, A> {
    name: &'static str,
    trusted: Patience,
    others: Patience,
    read: Arc<dyn Fn(Q) -> A + Send + Sync>,
    shared: Arc<Shared<Q, A>>,
    worker: Option<Worker>,
    stuck: Vec<Stuck>,
    calls: u64,
    /// In which call each process of a user who is not trusted was last answered: who waits longest comes first.
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
struct Stuck {
    pid: u32,
    uid: Option<u32>,
    returned: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Shared<Q, A> {
    state: Mutex<State<Q, A>>,
    /// The worker waits for jobs, and the caller for their end.
    changed: Condvar,
}

#[derive(Debug)]
struct State<Q, A> {
    /// Only the worker of this generation works; one that was left behind ends when it returns.
    generation: u64,
    queue: VecDeque<Queued<Q>>,
    /// How long the reads took of users who are not trusted.
    strangers_spent: Duration,
    current: Option<Current>,
    replies: Vec<Reply<A>>,
}

/// The read that is under way.
#[derive(Clone, Copy, Debug)]
struct Current {
    place: usize,
    began: Instant,
    is_trusted: bool,
}

#[derive(Debug)]
struct Queued<Q> {
    /// Among the answers.
    place: usize,
    job: Job<Q>,
}

impl<Q: Send + 'static, A: Send + 'static> Patient<Q, A> {
    /// `read` is called on a thread of this name. One that makes no progress for as long as `patience` is left behind.
    pub fn new(
        name: &'static str,
        patience: Duration,
        read: impl Fn(Q) -> A + Send + Sync + 'static,
    ) -> Self {
        let state = State {
            generation: 0,
            queue: VecDeque::new(),
            strangers_spent: Duration::ZERO,
            current: None,
            replies: Vec::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
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

    /// Waits no longer than this for processes of users who are not trusted.
    pub fn with_patience_for_others(mut self, patience: Duration) -> Self {
        self.others = Patience::new(patience);
        self
    }

    /// Threads that hang.
    pub fn stuck(&mut self) -> usize {
        self.stuck.retain(|stuck| !stuck.returned.load(Ordering::Acquire));
        self.stuck.len()
    }

    /// The answers in the order of the jobs, in a round of its own.
    pub fn each(&mut self, jobs: Vec<Job<Q>>) -> Vec<Option<A>> {
        self.begin_round();
        self.ask(jobs).into_iter().map(|reply| reply.answer).collect()
    }

    /// Gives the calls of [`ask`](Self::ask) until the next round all the time that one may wait.
    pub fn begin_round(&mut self) {
        (self.trusted.left_behind, self.others.left_behind) = (0, 0);
    }

    /// The replies in the order of the jobs, of which those of trusted users are done first; then users have turns.
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

    /// Readings that users went without since the last call of this.
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
    fn in_turns(&mut self, jobs: Vec<Job<Q>>) -> VecDeque<Queued<Q>> {
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

    /// Without the processes that hang, without those of users who have too many of them, and without those for whom this
    /// round has waited enough.
    fn askable(&mut self, jobs: impl Iterator<Item = (usize, Job<Q>)>) -> Vec<Queued<Q>> {
        let is_full = self.stuck() >= MAX_STUCK;
        let pids: HashSet<u32> = self.stuck.iter().map(|stuck| stuck.pid).collect();
        let may_hang = |uid| !is_full && (self.stuck.is_empty() || self.stuck_of(uid) < MAX_STUCK_OF_USER);
        let is_askable = |job: &Job<Q>| {
            let may_wait = self.patience(job.is_trusted).is_left();
            may_wait && !pids.contains(&job.pid) && (job.is_trusted || may_hang(job.uid))
        };
        let jobs = jobs.filter(|(_, job)| is_askable(job));
        jobs.map(|(place, job)| Queued { place, job }).collect()
    }

    fn patience(&self, is_trusted: bool) -> Patience {
        if is_trusted { self.trusted } else { self.others }
    }

    fn stuck_of(&self, uid: Option<u32>) -> usize {
        self.stuck.iter().filter(|stuck| stuck.uid == uid).count()
    }

    /// Has a worker do what is in the queue; false where no thread can be started.
    fn run(&mut self) -> bool {
        self.shared.changed.notify_all();
        if self.worker.as_ref().is_some_and(|worker| !worker.returned.load(Ordering::Acquire)) {
            return true;
        }
        let returned = Arc::new(AtomicBool::new(false));
        let generation = self.shared.lock().generation;
        let (shared, read) = (Arc::clone(&self.shared), Arc::clone(&self.read));
        let mark = Returned(Arc::clone(&returned));
        let builder = thread::Builder::new().name(self.name.to_owned()).stack_size(STACK_BYTES);
        let spawned = builder.spawn(move || {
            let _mark = mark;
            work(&shared, generation, read.as_ref());
        });
        self.worker = spawned.is_ok().then_some(Worker { returned });
        self.worker.is_some()
    }

    /// Waits until all is done; the place of the job that hangs, if one does.
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
            // Without a current job, the worker has not begun: it is the machine that is slow.
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
            self.stuck.push(Stuck { pid, uid, returned });
        }
        let patience = if is_trusted { &mut self.trusted } else { &mut self.others };
        patience.left_behind += 1;
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
        // What else this user has may hang as well: the others come first.
        let is_same = |queued: &Queued<Q>| queued.job.uid == uid && !queued.job.is_trusted;
        let (same, others): (VecDeque<_>, VecDeque<_>) = queue.into_iter().partition(is_same);
        state.queue = others.into_iter().chain(same.into_iter().filter(|_| may_hang)).collect();
    }
}

impl Patience {
    fn new(whole: Duration) -> Self {
        Self { whole, left_behind: 0 }
    }

    fn is_left(self) -> bool {
        self.left_behind < LEFT_BEHIND_IN_A_ROUND
    }

    /// How long the next read is waited for.
    fn now(self) -> Duration {
        self.whole / 2_u32.pow(self.left_behind)
    }
}

impl<Q, A> Drop for Patient<Q, A> {
    fn drop(&mut self) {
        self.shared.lock().generation += 1;
        self.shared.changed.notify_all();
    }
}

impl<Q, A> State<Q, A> {
    fn next(&mut self) -> Option<Queued<Q>> {
        let next = self.queue.pop_front()?;
        if !next.job.is_trusted && self.strangers_spent >= TIME_OF_STRANGERS {
            self.queue.clear();
            return None;
        }
        Some(next)
    }
}

impl<Q, A> Shared<Q, A> {
    /// Nothing panics with it held.
    fn lock(&self) -> MutexGuard<'_, State<Q, A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that a thread has ended, however it has.
struct Returned(Arc<AtomicBool>);

impl Drop for Returned {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn work<Q, A>(shared: &Shared<Q, A>, generation: u64, read: &(dyn Fn(Q) -> A + Send + Sync)) {
    let mut state = shared.lock();
    while state.generation == generation {
        let Some(Queued { place, job }) = state.next() else {
            shared.changed.notify_all();
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let (began, is_trusted) = (Instant::now(), job.is_trusted);
        state.current = Some(Current { place, began, is_trusted });
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

#[cfg(test)]
mod tests;
