//! Calls a source on its own thread, so that no tick waits for it.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Handle;

use super::KEEP_LISTING;
use crate::sources::push::Inbox;
use crate::sources::{Listing, Source, SourceError};

type ListResult = Result<Listing, SourceError>;

/// A source of which at most one call is under way. It is none that learns from the others in a round.
pub struct BackgroundSource {
    /// Locked while a call is under way; poisoned when it has panicked.
    source: Arc<Mutex<Box<dyn Source>>>,
    call: Option<Call>,
    inbox: Option<Inbox>,
    deadline: Duration,
}

/// A call that has not returned.
struct Call {
    began: Instant,
    began_at: SystemTime,
    answer: Receiver<ListResult>,
}

impl BackgroundSource {
    pub fn new(source: Box<dyn Source>) -> Self {
        let (inbox, deadline) = (source.inbox(), source.deadline());
        Self { source: Arc::new(Mutex::new(source)), call: None, inbox, deadline }
    }

    /// Begins a call, where there can be one more thread.
    fn begin(&self) -> Result<Call, SourceError> {
        let (sender, answer) = mpsc::sync_channel(1);
        // Functions of an asynchronous program ask for its runtime.
        let runtime = Handle::try_current().ok();
        let source = Arc::clone(&self.source);
        let call = move || {
            let _context = runtime.as_ref().map(Handle::enter);
            let Ok(listed) = source.lock().map(|mut source| source.list()) else { return };
            // Nobody waits any more where the sources are gone.
            let _ = sender.send(listed);
        };
        let (began, began_at) = (Instant::now(), SystemTime::now());
        let thread = thread::Builder::new().name("source".to_owned()).spawn(call);
        thread.map_err(|error| SourceError::NoThread { source: error.into() })?;
        Ok(Call { began, began_at, answer })
    }

    /// Waits for the answer until the deadline of the call. An answer that is there counts at any time.
    fn wait(&mut self, call: Call) -> ListResult {
        match call.answer.recv_timeout(self.deadline.saturating_sub(call.began.elapsed())) {
            Ok(listed) => listed,
            Err(RecvTimeoutError::Timeout) => self.hangs(call),
            Err(RecvTimeoutError::Disconnected) => Err(SourceError::Ended),
        }
    }

    /// The call goes on, and the next tick takes its answer.
    fn hangs(&mut self, call: Call) -> ListResult {
        let since = call.began_at;
        self.call = Some(call);
        Err(SourceError::Hangs { since })
    }
}

impl Source for BackgroundSource {
    fn list(&mut self) -> ListResult {
        match self.call.take() {
            // The answer of a very long call is outdated: the source is called again.
            Some(call) if call.began.elapsed() >= KEEP_LISTING => match call.answer.try_recv() {
                Ok(_) => self.begin().and_then(|call| self.wait(call)),
                Err(TryRecvError::Empty) => self.hangs(call),
                Err(TryRecvError::Disconnected) => Err(SourceError::Ended),
            },
            Some(call) => self.wait(call),
            None => self.begin().and_then(|call| self.wait(call)),
        }
    }

    fn inbox(&self) -> Option<Inbox> {
        self.inbox.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::Sender;

    use super::*;
    use crate::model::InstanceInfo;

    /// Answers when it is told to, and counts how often it is asked.
    struct Blocking {
        entry: Arc<AtomicUsize>,
        orders: Mutex<Receiver<&'static str>>,
    }

    impl Source for Blocking {
        fn list(&mut self) -> ListResult {
            self.entry.fetch_add(1, Ordering::SeqCst);
            let id = self.orders.lock().unwrap().recv().expect("an order");
            assert!(id != "panic");
            Ok(vec![InstanceInfo { id: id.into(), ..InstanceInfo::default() }].into())
        }

        fn deadline(&self) -> Duration {
            Duration::from_millis(20)
        }
    }

    fn blocking() -> (BackgroundSource, Sender<&'static str>, Arc<AtomicUsize>) {
        let (order, orders) = mpsc::channel();
        let entry = Arc::new(AtomicUsize::new(0));
        let source = Blocking { entry: Arc::clone(&entry), orders: Mutex::new(orders) };
        (BackgroundSource::new(Box::new(source)), order, entry)
    }

    fn ids(source: &mut BackgroundSource) -> Result<Vec<String>, String> {
        let listed = source.list();
        listed
            .map(|listing| listing.instances.into_iter().map(|vm| vm.id).collect())
            .map_err(|error| error.to_string())
    }

    /// Asks until the call has returned.
    fn answered(source: &mut BackgroundSource) -> Vec<String> {
        loop {
            match ids(source) {
                Ok(ids) => return ids,
                Err(error) => assert!(error.contains("has not answered since"), "{error}"),
            }
        }
    }

    #[test]
    fn a_source_that_hangs_is_asked_once() {
        let (mut source, order, entry) = blocking();
        let first = ids(&mut source).unwrap_err();
        for _ in 0..20 {
            assert_eq!(ids(&mut source).unwrap_err(), first, "since the same moment");
        }
        assert!(entry.load(Ordering::SeqCst) <= 1);
        order.send("late").unwrap();
        assert_eq!(answered(&mut source), ["late"]);
        order.send("again").unwrap();
        assert_eq!(answered(&mut source), ["again"]);
        assert_eq!(entry.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn an_old_answer_is_never_taken() {
        let (mut source, order, entry) = blocking();
        ids(&mut source).unwrap_err();
        order.send("old").unwrap();
        source.call.as_mut().expect("it hangs").began -= KEEP_LISTING;
        order.send("new").unwrap();
        assert_eq!(answered(&mut source), ["new"]);
        assert_eq!(entry.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_source_that_panics_is_an_error() {
        let (mut source, order, _) = blocking();
        order.send("panic").unwrap();
        for _ in 0..2 {
            let error = loop {
                match ids(&mut source).unwrap_err() {
                    error if error.contains("has not answered since") => {}
                    error => break error,
                }
            };
            assert!(error.contains("panicked"), "{error}");
        }
    }

    #[test]
    fn a_source_finds_the_runtime_of_its_program() {
        struct OnRuntime;
        impl Source for OnRuntime {
            fn list(&mut self) -> ListResult {
                Handle::current().block_on(async { Ok(Vec::new().into()) })
            }
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listed = runtime.block_on(async {
            let mut source = BackgroundSource::new(Box::new(OnRuntime));
            tokio::task::spawn_blocking(move || ids(&mut source)).await.unwrap()
        });
        assert_eq!(listed, Ok(Vec::new()));
    }
}
