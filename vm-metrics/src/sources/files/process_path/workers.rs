//! Limits the threads that open paths of processes, per user and in all.
//!
//! A thread in a dead file system keeps its permit. So a user with such files loses only own permits.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::Trust;
use crate::sources::files::operators::Operators;

/// The user id of root.
const ROOT: u32 = 0;

/// Of one user who is not trusted.
const PER_USER: usize = 4;

/// Of all users who are not trusted; and of root and the trusted users once more.
const IN_ALL: usize = 16;

/// Shared by all who open such paths.
#[derive(Clone, Debug)]
pub struct Workers {
    trust: Trust,
    /// The users who may declare VMs of all users.
    pub operators: Operators,
    trusted: Arc<Semaphore>,
    others: Arc<Semaphore>,
    users: Arc<Mutex<HashMap<Option<u32>, Arc<Semaphore>>>>,
}

/// That one thread may run.
#[derive(Debug)]
pub struct Permit {
    /// Where the thread works for a trusted user who is not root: a process of root may read all files anyway.
    pub(super) operators: Option<Operators>,
    _of_all: OwnedSemaphorePermit,
    _of_user: Option<OwnedSemaphorePermit>,
}

impl Default for Workers {
    fn default() -> Self {
        Self::new(Trust::default(), Operators::default())
    }
}

impl Workers {
    pub fn new(trust: Trust, operators: Operators) -> Self {
        let all = || Arc::new(Semaphore::new(IN_ALL));
        Self { trust, operators, trusted: all(), others: all(), users: Arc::default() }
    }

    pub fn trusts(&self, uid: Option<u32>) -> bool {
        self.trust.is_trusted(uid)
    }

    /// `None` where so many threads run already.
    pub fn try_permit(&self, uid: Option<u32>) -> Option<Permit> {
        let of_user = match self.user(uid) {
            Some(user) => Some(user.try_acquire_owned().ok()?),
            None => None,
        };
        Some(self.of(uid, self.all(uid).try_acquire_owned().ok()?, of_user))
    }

    /// Waits until one more thread may run.
    pub async fn permit(&self, uid: Option<u32>) -> io::Result<Permit> {
        let of_user = match self.user(uid) {
            Some(user) => Some(user.acquire_owned().await.map_err(io::Error::other)?),
            None => None,
        };
        let of_all = self.all(uid).acquire_owned().await.map_err(io::Error::other)?;
        Ok(self.of(uid, of_all, of_user))
    }

    fn of(
        &self,
        uid: Option<u32>,
        of_all: OwnedSemaphorePermit,
        of_user: Option<OwnedSemaphorePermit>,
    ) -> Permit {
        let operators = (self.trusts(uid) && uid != Some(ROOT)).then(|| self.operators.clone());
        Permit { operators, _of_all: of_all, _of_user: of_user }
    }

    fn all(&self, uid: Option<u32>) -> Arc<Semaphore> {
        if self.trusts(uid) { self.trusted.clone() } else { self.others.clone() }
    }

    fn user(&self, uid: Option<u32>) -> Option<Arc<Semaphore>> {
        if self.trusts(uid) {
            return None;
        }
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of whom no thread runs and none waits.
        users.retain(|_, user| Arc::strong_count(user) > 1);
        Some(users.entry(uid).or_insert_with(|| Arc::new(Semaphore::new(PER_USER))).clone())
    }
}

impl Permit {
    pub(super) fn run(self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let work = move || {
            work();
            drop(self);
        };
        thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
    }
}
