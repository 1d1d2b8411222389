//! Shows all instruments of one collection the same snapshot.
//!
//! An SDK calls the instruments one by one, in the order of their registration, on one thread. The first one takes the
//! families of the latest snapshot, and the others show the same.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::exporters::families::Family;

/// A collection that takes longer is given up: its last instrument was not called, or its thread has ended.
const ABANDONED: Duration = Duration::from_secs(60);

type Look = Box<dyn Fn() -> Option<Vec<Family>> + Send + Sync>;

pub(super) struct Collections {
    look: Look,
    instruments: usize,
    /// Several, as two readers of one meter may collect at the same time.
    open: Mutex<Vec<Collection>>,
}

struct Collection {
    thread: ThreadId,
    began: Instant,
    /// The instrument that was called last.
    last: usize,
    families: Arc<Vec<Family>>,
}

impl Collections {
    pub(super) fn new(
        instruments: usize,
        look: impl Fn() -> Option<Vec<Family>> + Send + Sync + 'static,
    ) -> Self {
        Self { look: Box::new(look), instruments, open: Mutex::default() }
    }

    /// Shows an instrument the families of this collection.
    pub(super) fn visit(&self, instrument: usize, show: impl FnOnce(&[Family])) {
        show(&self.go_on(instrument).unwrap_or_else(|| self.begin(instrument)));
    }

    /// The collection of this thread, unless this instrument can only be of a later one.
    fn go_on(&self, instrument: usize) -> Option<Arc<Vec<Family>>> {
        let mut open = self.open();
        let thread = thread::current().id();
        let at = open.iter().position(|collection| collection.thread == thread)?;
        if open[at].last >= instrument {
            open.swap_remove(at);
            return None;
        }
        open[at].last = instrument;
        if instrument + 1 == self.instruments {
            return Some(open.swap_remove(at).families);
        }
        Some(Arc::clone(&open[at].families))
    }

    fn begin(&self, instrument: usize) -> Arc<Vec<Family>> {
        // A source of the program may panic, and the SDK's thread would end with it.
        let look = panic::catch_unwind(AssertUnwindSafe(|| (self.look)()));
        let families = Arc::new(look.ok().flatten().unwrap_or_default());
        let began = Instant::now();
        let mut open = self.open();
        open.retain(|collection| collection.began.elapsed() < ABANDONED);
        if instrument + 1 < self.instruments {
            let thread = thread::current().id();
            open.push(Collection { thread, began, last: instrument, families: Arc::clone(&families) });
        }
        families
    }

    fn open(&self) -> MutexGuard<'_, Vec<Collection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
