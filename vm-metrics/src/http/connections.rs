//! Accepts connections, and keeps anybody from holding so many that others find no room.

use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// A few scrapers and a few people are ten connections. Each is an open file, and there are VMs that need theirs.
const MAX_OPEN: usize = 64;

/// How long a connection may say nothing, or not all of its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Before accepting again, when the process or the host has no open files left.
const RETRY: Duration = Duration::from_secs(1);

/// Where connections come from.
pub trait Accept {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

/// Serves until `leaving`, and then until the last answer is given.
pub async fn serve(listener: impl Accept, router: Router, leaving: impl Future<Output = ()>) {
    let mut leaving = pin!(leaving);
    let graceful = GracefulShutdown::new();
    let mut open = Open::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut leaving => break,
        };
        match accepted {
            Ok(stream) => open.add(stream, router.clone(), &graceful).await,
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => {}
                    () = &mut leaving => break,
                }
            }
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

/// The open connections, the oldest first.
#[derive(Default)]
struct Open(VecDeque<JoinHandle<()>>);

impl Open {
    /// Where there is no room the oldest goes: who waits for nothing, or does not take the answer, hinders nobody, and a
    /// scraper connects again.
    async fn add<S>(&mut self, stream: S, router: Router, graceful: &GracefulShutdown)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.0.retain(|connection| !connection.is_finished());
        while self.0.len() >= MAX_OPEN {
            if let Some(oldest) = self.0.pop_front() {
                oldest.abort();
                // Its file is closed when it has ended, not before; how it ended does not matter.
                let _ = oldest.await;
            }
        }
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        let connection = graceful.watch(connection);
        self.0.push_back(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection ended early: {error}");
            }
        }));
    }
}

/// It was closed before it was accepted; the next one may be fine.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
