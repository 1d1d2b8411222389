//! Accepts connections, with limits that leave room for every peer.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use super::activity::{Activity, NotedService, NotedStream, Patience};
use super::open_connections::OpenConnections;
use super::peer::Peer;
use super::unix_socket::UnixSocket;

/// Only root and the daemon's user may connect.
const MAX_UNIX: usize = 16;

/// Time limit for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limits for an answer.
const PATIENCE: Patience = Patience { answer: Duration::from_secs(30), stall: Duration::from_secs(10) };

/// Interval of the checks for overdue answers.
const LOOK: Duration = Duration::from_millis(250);

/// Limit of the head of a request, and of the buffered bytes of an answer.
const BUFFER: usize = 32 << 10;

/// Pause before the next accept, when the process or the host has no open files left.
const RETRY: Duration = Duration::from_millis(100);

/// Interval of the warnings about that in the log.
const NEWS: Duration = Duration::from_secs(60);

/// A source of connections.
pub trait Accept: Send {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Connections at the same time.
    const MAX_OPEN: usize;

    /// The next connection and its peer; `None` if the peer has closed it already.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, Option<Peer>)>> + Send;
}

impl Accept for UnixSocket {
    type Stream = UnixStream;
    const MAX_OPEN: usize = MAX_UNIX;

    async fn accept(&mut self) -> io::Result<(UnixStream, Option<Peer>)> {
        let (stream, peer) = poll_fn(|cx| self.poll_accept(cx)).await?;
        Ok((stream, Some(peer)))
    }
}

/// Serves until `leaving`, and then until the last answer is given.
pub async fn serve(listener: impl Accept, router: Router, leaving: impl Future<Output = ()>) {
    let graceful = GracefulShutdown::new();
    accept_until(listener, &router, PATIENCE, &graceful, leaving).await;
    graceful.shutdown().await;
}

async fn accept_until<L: Accept>(
    mut listener: L,
    router: &Router,
    patience: Patience,
    graceful: &GracefulShutdown,
    leaving: impl Future<Output = ()>,
) {
    let mut leaving = pin!(leaving);
    let mut open = OpenConnections::new(L::MAX_OPEN);
    let mut logged: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut leaving => return,
        };
        match accepted {
            Ok((stream, Some(peer))) if open.make_room(peer).await => {
                let activity = Activity::new();
                let answer = answer(stream, router.clone(), activity.clone(), patience, graceful);
                open.add(peer, activity, tokio::spawn(answer));
            }
            // In a flood of new connections the open ones must have their turn.
            Ok(_) => tokio::task::yield_now().await,
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                if logged.is_none_or(|logged| logged.elapsed() > NEWS) {
                    tracing::warn!("cannot accept a connection: {error}");
                    logged = Some(Instant::now());
                }
                open.close_an_idle_one().await;
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => {}
                    () = &mut leaving => return,
                }
            }
        }
    }
}

/// Serves one connection, from its first request to its last.
fn answer<S>(
    stream: S,
    router: Router,
    activity: Activity,
    patience: Patience,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + use<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = NotedService { inner: TowerToHyperService::new(router), activity: activity.clone() };
    let stream = NotedStream { inner: stream, activity: activity.clone() };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    async move {
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::debug!("a connection ended early: {error}");
            },
            () = overdue(&activity, patience) => tracing::debug!("a peer does not take its answer"),
        }
    }
}

/// Waits until the connection is overdue.
async fn overdue(activity: &Activity, patience: Patience) {
    while !activity.is_overdue(patience) {
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether the error concerns this connection only, so that the next one may succeed.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NotConnected
    )
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;
