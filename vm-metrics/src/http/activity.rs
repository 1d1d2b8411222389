//! State of a connection: waiting for a request, answering it, or sending the answer.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// An extension of a response. When it is set, the connection closes unless the peer has read the whole response.
#[derive(Clone, Debug, Default)]
pub(super) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub(super) fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Responses that are being sent, and the caller's own handle.
    pub(super) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

/// Shared by a connection's stream, its service and its watchdog.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    had_request: bool,
    /// The time since which the peer has read nothing of the waiting bytes.
    blocked: Option<Instant>,
    cancel: Option<Cancel>,
}

/// Time limits of a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From the head of a request until the peer has read the whole answer.
    pub(super) answer: Duration,
    /// Without reading a single byte.
    pub(super) stall: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    /// From the head of a request to the end of the body of its answer.
    Answering,
    /// The last bytes are in memory.
    Sending,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State::new(Phase::Idle, false))))
    }

    /// Time without a request; `None` while a request is under way.
    pub(super) fn idle(&self) -> Option<Duration> {
        let state = self.state();
        (state.phase == Phase::Idle).then(|| state.since.elapsed())
    }

    pub(super) fn had_request(&self) -> bool {
        self.state().had_request
    }

    /// Whether the request under way exceeds its time, or its answer is abandoned.
    pub(super) fn is_overdue(&self, patience: Patience) -> bool {
        let state = self.state();
        let cancelled = state.cancel.as_ref().is_some_and(Cancel::is_cancelled);
        let stalls = state.blocked.is_some_and(|since| since.elapsed() > patience.stall);
        state.phase != Phase::Idle && (cancelled || stalls || state.since.elapsed() > patience.answer)
    }

    pub(super) fn begin(&self) {
        *self.state() = State::new(Phase::Answering, true);
    }

    pub(super) fn answered(&self) {
        self.state().phase = Phase::Sending;
    }

    pub(super) fn flushed(&self) {
        let mut state = self.state();
        if state.phase == Phase::Sending {
            *state = State::new(Phase::Idle, true);
        }
    }

    /// Notes whether the peer's buffers are full.
    fn wrote<T>(&self, written: Poll<T>) -> Poll<T> {
        let mut state = self.state();
        state.blocked = written.is_pending().then(|| state.blocked.unwrap_or_else(Instant::now));
        written
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment, so a panic leaves no half-done change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(phase: Phase, had_request: bool) -> Self {
        Self { phase, since: Instant::now(), had_request, blocked: None, cancel: None }
    }
}

/// The router, which records the beginning of each request and the end of each body.
pub(super) struct NotedService {
    pub(super) inner: TowerToHyperService<Router>,
    pub(super) activity: Activity,
}

impl Service<Request<Incoming>> for NotedService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.activity.begin();
        let (answer, activity) = (self.inner.call(request), self.activity.clone());
        Box::pin(async move {
            let mut answer = answer.await?;
            activity.state().cancel = answer.extensions_mut().remove::<Cancel>();
            let end = BodyEnd(activity);
            let keep = move |error| {
                let _end = &end;
                error
            };
            // Unlike other adapters, this one keeps the length of the body.
            Ok(answer.map(|body| Body::new(body.map_err(keep))))
        })
    }
}

/// A part of the body of an answer; hyper drops the body when all of it is in memory.
struct BodyEnd(Activity);

impl Drop for BodyEnd {
    fn drop(&mut self) {
        self.0.answered();
    }
}

/// A connection's stream. Hyper flushes it only when it has written all that it has.
pub(super) struct NotedStream<S> {
    pub(super) inner: S,
    pub(super) activity: Activity,
}

impl<S: AsyncRead + Unpin> AsyncRead for NotedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for NotedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.activity.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bytes);
        self.activity.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.activity.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
