//! Calls out as soon as a network device comes, changes or goes, or a hypervisor ends, so that nobody has to wait for the
//! next tick.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;

use super::ReaderError;
use super::rtnetlink::Events;

/// How late the thread notices that nobody wants to know any more.
const LOOK_UP: Duration = Duration::from_secs(1);

/// News that one wait takes; more are news all the same.
const AT_ONCE: usize = 64;

/// The files that tell of news. Readers add theirs and take the news from them; a file that is closed is out by itself.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// `None` when nobody wants to know.
    epoll: Option<Arc<OwnedFd>>,
}

/// A thread that waits for news, until this is dropped.
#[derive(Debug)]
pub struct Watching {
    stop: Arc<AtomicBool>,
}

impl Watch {
    /// # Errors
    /// When there can be no more files.
    pub(crate) fn new() -> Result<Self, ReaderError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        Ok(Self { epoll: Some(Arc::new(epoll)) })
    }

    /// Each piece of news calls once, whether or not the file is read: `EPOLLET`.
    pub(super) fn add(&self, file: impl AsFd) {
        let Some(epoll) = &self.epoll else { return };
        let (nothing, on_news) =
            (epoll::EventData::new_u64(0), epoll::EventFlags::IN | epoll::EventFlags::ET);
        if let Err(errno) = epoll::add(epoll, file, nothing, on_news) {
            tracing::debug!("not watched: {errno}; the next tick finds it");
        }
    }

    /// Waits on a thread. What happens to the devices of the network namespace in which this is called is watched in any
    /// case.
    ///
    /// # Errors
    /// When the kernel will not tell of changes.
    pub fn spawn(&self, changed: impl Fn() + Send + 'static) -> Result<Watching, ReaderError> {
        let mut events = Events::open().map_err(failed)?;
        self.add(&events);
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, watch) = (Arc::clone(&stop), self.clone());
        let run = move || {
            while !stopped.load(Ordering::Relaxed) {
                match watch.wait() {
                    Ok(true) => changed(),
                    Ok(false) => {}
                    Err(errno) => {
                        tracing::warn!(
                            "no more news of devices and processes: {errno}; the next tick finds them"
                        );
                        break;
                    }
                }
                // Only to keep its queue empty.
                events.begin_round();
                let _ = events.take();
            }
        };
        thread::Builder::new().name("watch".to_owned()).spawn(run).map_err(failed)?;
        Ok(Watching { stop })
    }

    /// Whether there was news within a while.
    fn wait(&self) -> Result<bool, Errno> {
        let Some(epoll) = &self.epoll else {
            thread::sleep(LOOK_UP);
            return Ok(false);
        };
        let mut news = Vec::with_capacity(AT_ONCE);
        let at_most = Timespec::try_from(LOOK_UP).map_err(|_| Errno::INVAL)?;
        match epoll::wait(epoll, spare_capacity(&mut news), Some(&at_most)) {
            Ok(count) => Ok(count > 0),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

fn failed(source: impl Into<std::io::Error>) -> ReaderError {
    ReaderError::Netlink { operation: "listen for changes", source: source.into() }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
