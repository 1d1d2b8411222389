//! Accepts connections, and keeps anybody from holding so many that others find no room.

use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use super::activity::{Activity, NotedService, NotedStream, Patience};
use super::open::Open;
use super::peer::{Peer, TcpPeers};

/// A few scrapers and a few people are ten connections. Each is an open file, and there are VMs that need theirs.
const MAX_TCP: usize = 64;

/// Only root and the daemon's user may connect.
const MAX_UNIX: usize = 16;

/// How long a connection may say nothing, or not all of its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take to be given and taken.
const PATIENCE: Patience = Patience { answer: Duration::from_secs(30), stall: Duration::from_secs(10) };

/// Between two looks at whether an answer takes too long.
const LOOK: Duration = Duration::from_millis(250);

/// Bytes of the head of a request, and bytes of an answer beyond which no more is asked of its body.
const BUFFER: usize = 32 << 10;

/// Before accepting again, when the process or the host has no open files left.
const RETRY: Duration = Duration::from_millis(100);

/// Between two lines in the log that say so.
const NEWS: Duration = Duration::from_secs(60);

/// Connections that the kernel holds for the server: a flood must not push out those of others.
const BACKLOG: u32 = 4096;

/// Where connections come from.
pub trait Accept: Send {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Connections at the same time.
    const MAX_OPEN: usize;

    /// The next connection and whose it is; nobody's when the peer has closed it already.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, Option<Peer>)>> + Send;
}

/// A TCP socket that knows its peers.
#[derive(Debug)]
pub struct Tcp {
    listener: TcpListener,
    peers: TcpPeers,
}

/// Listens on a TCP address.
pub fn listen(address: std::net::SocketAddr) -> io::Result<Tcp> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let peers = TcpPeers::new(listener.local_addr());
    Ok(Tcp { listener, peers })
}

impl Tcp {
    pub fn local_addr(&self) -> io::Result<std::net::SocketAddr> {
        self.listener.local_addr()
    }
}

impl Accept for Tcp {
    type Stream = TcpStream;
    const MAX_OPEN: usize = MAX_TCP;

    async fn accept(&mut self) -> io::Result<(TcpStream, Option<Peer>)> {
        let (stream, client) = self.listener.accept().await?;
        // One that was reset is nobody's any more.
        let peer = match stream.take_error()? {
            None => self.peers.of(client, stream.local_addr()?),
            Some(_) => None,
        };
        Ok((stream, peer))
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;
    const MAX_OPEN: usize = MAX_UNIX;

    async fn accept(&mut self) -> io::Result<(UnixStream, Option<Peer>)> {
        let (stream, _) = Self::accept(self).await?;
        let peer = stream.peer_cred().map_or(Peer::Unknown, |peer| Peer::user(peer.uid()));
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
    let mut open = Open::new(L::MAX_OPEN);
    let mut said: Option<Instant> = None;
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
            // In a flood those who have a connection must have their turn.
            Ok(_) => tokio::task::yield_now().await,
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                if said.is_none_or(|said| said.elapsed() > NEWS) {
                    tracing::warn!("cannot accept a connection: {error}");
                    said = Some(Instant::now());
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

/// One connection, from its first request to its last.
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

/// Waits until the peer has had more than enough time.
async fn overdue(activity: &Activity, patience: Patience) {
    while !activity.is_overdue(patience) {
        tokio::time::sleep(LOOK).await;
    }
}

/// It was closed before it was accepted; the next one may be fine.
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
