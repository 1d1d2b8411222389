//! Calls for a tick when a device comes or goes, or a hypervisor ends.
//!
//! Users who are not trusted call at a bounded rate. What is not called for is seen at the next regular tick.

mod calls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;

use super::NetError;
use super::rtnetlink::{Events, Scope};
use crate::model::Tenant;
use calls::Calls;

/// How late the thread notices that nobody wants to know any more.
const LOOK_UP: Duration = Duration::from_secs(1);

/// News that one wait takes; more are news all the same.
const AT_ONCE: usize = 64;

/// The files that tell of news. Readers add theirs and take the news from them; a file that is closed is out by itself.
#[derive(Clone, Debug, Default)]
pub struct EventPoller {
    /// `None` when nobody wants to know.
    epoll: Option<Arc<OwnedFd>>,
}

/// A thread that waits for news, until this is dropped.
#[derive(Debug)]
pub struct PollerHandle {
    stop: Arc<AtomicBool>,
}

impl EventPoller {
    /// # Errors
    /// When there can be no more files.
    pub(crate) fn new() -> Result<Self, NetError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        Ok(Self { epoll: Some(Arc::new(epoll)) })
    }

    /// What happens at the file calls once, whether or not it is read (`EPOLLET`), as often as this user may call.
    pub(crate) fn add(&self, file: impl AsFd, tenant: Tenant) {
        self.add_with(file, data_of(tenant));
    }

    fn add_with(&self, file: impl AsFd, data: u64) {
        let Some(epoll) = &self.epoll else { return };
        let (data, on_news) =
            (epoll::EventData::new_u64(data), epoll::EventFlags::IN | epoll::EventFlags::ET);
        if let Err(errno) = epoll::add(epoll, file, data, on_news) {
            tracing::debug!("not watched: {errno}; the next tick finds it");
        }
    }

    /// Waits on a thread. What happens to the devices of the network namespace in which this is called is watched in any
    /// case.
    ///
    /// # Errors
    /// When the kernel will not tell of changes.
    pub fn spawn(&self, changed: impl Fn() + Send + 'static) -> Result<PollerHandle, NetError> {
        let mut events = Events::open(Scope::OWN).map_err(failed)?;
        self.add_with(&events, DEVICES);
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, watch) = (Arc::clone(&stop), self.clone());
        let run = move || {
            let mut calls = Calls::new(Instant::now());
            while !stopped.load(Ordering::Relaxed) {
                match watch.wait() {
                    Ok(news) => {
                        if is_to_be_called(&news, &mut events, &mut calls) {
                            changed();
                        }
                    }
                    Err(errno) => {
                        tracing::warn!(
                            "no more news of devices and processes: {errno}; the next tick finds them"
                        );
                        break;
                    }
                }
            }
        };
        thread::Builder::new().name("watch".to_owned()).spawn(run).map_err(failed)?;
        Ok(PollerHandle { stop })
    }

    /// To whose files something has happened within a while.
    fn wait(&self) -> Result<Vec<u64>, Errno> {
        let Some(epoll) = &self.epoll else {
            thread::sleep(LOOK_UP);
            return Ok(Vec::new());
        };
        let mut news = Vec::with_capacity(AT_ONCE);
        let at_most = Timespec::try_from(LOOK_UP).map_err(|_| Errno::INVAL)?;
        match epoll::wait(epoll, spare_capacity(&mut news), Some(&at_most)) {
            Ok(_) => Ok(news.iter().map(|event| event.data.u64()).collect()),
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(errno) => Err(errno),
        }
    }
}

/// The kernel gives back a number with each event. It stands for the devices of this namespace, for files of trusted users,
/// or for files of one other user.
const DEVICES: u64 = 0;
const TRUSTED: u64 = 1;
const OF_USER: u64 = 1 << 32;

/// The user for whom a tick is called when a device that was there before has changed.
const ANY_HOLDER: u32 = u32::MAX - 1;

fn data_of(tenant: Tenant) -> u64 {
    match tenant {
        Tenant::Trusted => TRUSTED,
        Tenant::Other(uid) => OF_USER | u64::from(uid.unwrap_or(u32::MAX)),
    }
}

/// Takes in the events of devices, and says whether it is time for a tick.
fn is_to_be_called(news: &[u64], events: &mut Events, calls: &mut Calls) -> bool {
    let mut is_called = news.contains(&TRUSTED);
    if news.contains(&DEVICES) {
        events.begin_round();
        // What was lost may have been anything.
        is_called |= events.take().unwrap_or(true) || events.has_changes();
        // Who holds a TAP can do this to it without end.
        if events.has_touched() {
            calls.owe(ANY_HOLDER);
        }
    }
    for user in news.iter().filter(|data| **data & OF_USER != 0) {
        calls.owe(u32::try_from(*user & !OF_USER).unwrap_or(u32::MAX));
    }
    calls.may_call(Instant::now()) || is_called
}

fn failed(source: impl Into<std::io::Error>) -> NetError {
    NetError::Netlink { operation: "listen for changes", source: Arc::new(source.into()) }
}

impl Drop for PollerHandle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_calls_less_often() {
        let mut events = Events::open(Scope::OWN).unwrap();
        let mut calls = Calls::new(Instant::now());
        let mut called = |tenant| {
            let call = |_| is_to_be_called(&[data_of(tenant)], &mut events, &mut calls);
            (0..100).map(call).filter(|called| *called).count()
        };
        assert_eq!(called(Tenant::Trusted), 100);
        assert!(called(Tenant::Other(Some(1000))) < 10);
        assert!(called(Tenant::Other(None)) < 10);
    }
}
