//! Closes duplicated files on own threads, since a tenant's file system may never answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::fd::OwnedFd;

/// Closes of one user's files that may be under way.
const MAX_PER_USER: usize = 4;

/// Closes that may be under way in all.
const MAX: usize = 64;

#[derive(Clone, Debug, Default)]
pub struct Closer {
    under_way: Arc<Mutex<HashMap<Option<u32>, usize>>>,
}

impl Closer {
    /// Whether files of this user cannot be closed for now, so that none should be opened.
    pub fn is_full(&self, uid: Option<u32>) -> bool {
        let under_way = self.counts();
        under_way.get(&uid).is_some_and(|count| *count >= MAX_PER_USER)
            || under_way.values().sum::<usize>() >= MAX
    }

    /// Waits for nothing. Where there can be no more threads it closes the file itself.
    pub fn close(&self, file: OwnedFd, uid: Option<u32>) {
        *self.counts().entry(uid).or_default() += 1;
        let closer = self.clone();
        let close = move || {
            drop(file);
            closer.closed(uid);
        };
        if let Err(error) = thread::Builder::new().name("close".to_owned()).spawn(close) {
            tracing::debug!("a file was closed by the tick itself: {error}");
            self.closed(uid);
        }
    }

    fn closed(&self, uid: Option<u32>) {
        let mut under_way = self.counts();
        if let Some(count) = under_way.get_mut(&uid) {
            *count -= 1;
        }
        under_way.retain(|_, count| *count > 0);
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Option<u32>, usize>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use vm_metrics_testkit::wait::{Deadline, SOON};

    use super::*;

    #[test]
    fn a_stuck_user_hinders_no_other() {
        let closer = Closer::default();
        closer.counts().insert(Some(7), MAX_PER_USER);
        assert!(closer.is_full(Some(7)) && !closer.is_full(Some(8)));
        closer.closed(Some(7));
        assert!(!closer.is_full(Some(7)));
    }

    #[test]
    fn a_closed_file_is_forgotten() {
        let closer = Closer::default();
        closer.close(File::open(".").unwrap().into(), Some(7));
        let mut deadline = Deadline::after(SOON);
        while !closer.counts().is_empty() {
            assert!(!deadline.has_passed(), "the file is not closed");
            thread::yield_now();
        }
    }
}
