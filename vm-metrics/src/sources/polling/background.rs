//! Calls a source on its own thread, so that no tick waits for it.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Handle;

use super::KEEP_LISTING;
use crate::sources::push::Inbox;
use crate::sources::{Listing, Source, SourceError};

type ListResult = Result<Listing, SourceError>;

/// A source of which at most one call is under way. It is none that learns from the others in a round.
pub struct BackgroundSource {
    state: State,
    inbox: Option<Inbox>,
    deadline: Duration,
}

enum State {
    /// Nobody asks it.
    Idle(Box<dyn Source>),
    Busy(Call),
    /// It has panicked.
    Ended,
}

/// A call that has not returned.
struct Call {
    began: Instant,
    began_at: SystemTime,
    answer: Receiver<(Box<dyn Source>, ListResult)>,
}

impl BackgroundSource {
    pub fn new(source: Box<dyn Source>) -> Self {
        let (inbox, deadline) = (source.inbox(), source.deadline());
        Self { state: State::Idle(source), inbox, deadline }
    }

    /// Asks the source, and waits for its answer.
    fn ask(&mut self, source: Box<dyn Source>) -> ListResult {
        match ask(source) {
            Ok(call) => self.wait(call),
            Err((source, error)) => {
                self.state = State::Idle(source);
                Err(SourceError::NoThread { source: error.into() })
            }
        }
    }

    /// Waits for the answer until the deadline of the call. An answer that is there counts at any time.
    fn wait(&mut self, call: Call) -> ListResult {
        match call.answer.recv_timeout(self.deadline.saturating_sub(call.began.elapsed())) {
            Ok((source, listed)) => {
                self.state = State::Idle(source);
                listed
            }
            Err(RecvTimeoutError::Timeout) => self.hangs(call),
            Err(RecvTimeoutError::Disconnected) => Err(SourceError::Ended),
        }
    }

    /// The call goes on, and the next tick takes its answer.
    fn hangs(&mut self, call: Call) -> ListResult {
        let since = call.began_at;
        self.state = State::Busy(call);
        Err(SourceError::Hangs { since })
    }
}

impl Source for BackgroundSource {
    fn list(&mut self) -> ListResult {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Idle(source) => self.ask(source),
            // The answer of a very long call is outdated: the source is called again.
            State::Busy(call) if call.began.elapsed() >= KEEP_LISTING => match call.answer.try_recv() {
                Ok((source, _)) => self.ask(source),
                Err(TryRecvError::Empty) => self.hangs(call),
                Err(TryRecvError::Disconnected) => Err(SourceError::Ended),
            },
            State::Busy(call) => self.wait(call),
            State::Ended => Err(SourceError::Ended),
        }
    }

    fn inbox(&self) -> Option<Inbox> {
        self.inbox.clone()
    }
}

/// Begins a call. Where there can be no more threads, the source comes back.
fn ask(source: Box<dyn Source>) -> Result<Call, (Box<dyn Source>, io::Error)> {
    let (give, given) = mpsc::sync_channel::<Box<dyn Source>>(1);
    let (sender, answer) = mpsc::sync_channel(1);
    // Functions of an asynchronous program ask for its runtime.
    let runtime = Handle::try_current().ok();
    let call = move || {
        let _context = runtime.as_ref().map(Handle::enter);
        let Ok(mut source) = given.recv() else { return };
        let listed = source.list();
        // Nobody waits any more where the sources are gone.
        let _ = sender.send((source, listed));
    };
    let (began, began_at) = (Instant::now(), SystemTime::now());
    if let Err(error) = thread::Builder::new().name("source".to_owned()).spawn(call) {
        return Err((source, error));
    }
    match give.send(source) {
        Ok(()) => Ok(Call { began, began_at, answer }),
        Err(mpsc::SendError(source)) => Err((source, io::ErrorKind::BrokenPipe.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::Sender;
    use std::sync::{Arc, Mutex};

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
        let State::Busy(call) = &mut source.state else { panic!("it hangs") };
        call.began -= KEEP_LISTING;
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
