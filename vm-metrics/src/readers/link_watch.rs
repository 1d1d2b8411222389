//! Calls out as soon as a network device comes, changes or goes, so that nobody has to wait for the next tick.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::ReaderError;
use super::rtnetlink::Events;

/// How late the thread notices that nobody wants to know any more.
const LOOK_UP: Duration = Duration::from_secs(1);

/// Watches the network namespace in which it was started, until it is dropped.
#[derive(Debug)]
pub struct LinkWatch {
    stop: Arc<AtomicBool>,
}

impl LinkWatch {
    /// # Errors
    /// When the kernel will not tell of changes.
    pub fn spawn(changed: impl Fn() + Send + 'static) -> Result<Self, ReaderError> {
        let failed = |source| ReaderError::Netlink { operation: "listen for changes", source };
        let mut events = Events::open().map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watch = move || {
            while !stopped.load(Ordering::Relaxed) {
                match events.wait(LOOK_UP) {
                    Ok(true) => changed(),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!("no more news of network devices: {error}; the next tick finds them");
                        break;
                    }
                }
            }
        };
        thread::Builder::new().name("links".to_owned()).spawn(watch).map_err(failed)?;
        Ok(Self { stop })
    }
}

impl Drop for LinkWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
