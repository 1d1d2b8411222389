//! Joins all public listeners, so that one table of connections limits them together.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use super::connections::Accept;
use super::peer::{Peer, TcpPeers};
use super::unix_socket::UnixSocket;

/// Limit of open connections. A few scrapers and people need about ten. Each is an open file, and VMs need files, too.
pub(super) const MAX_PUBLIC: usize = 64;

/// The public TCP and Unix sockets.
#[derive(Debug)]
pub struct Listeners {
    sockets: Vec<Socket>,
    peers: TcpPeers,
    /// Index of the socket that is polled first.
    first: usize,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

/// The stream of a connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

type Accepted = (Box<dyn Stream>, Option<Peer>);

impl Listeners {
    pub(super) fn new(tcp: Vec<TcpListener>, unix: Vec<UnixSocket>) -> Self {
        let peers = TcpPeers::new(tcp.first().map(TcpListener::local_addr));
        let sockets = tcp.into_iter().map(Socket::Tcp).chain(unix.into_iter().map(Socket::Unix)).collect();
        Self { sockets, peers, first: 0 }
    }

    /// Each address, for a line of the log.
    #[must_use]
    pub fn names(&self) -> String {
        let names: Vec<String> = self.sockets.iter().map(Socket::name).collect();
        names.join(", ")
    }

    #[cfg(test)]
    pub(super) fn tcp_addresses(&self) -> Vec<SocketAddr> {
        let tcp = |socket: &Socket| match socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(_) => None,
        };
        self.sockets.iter().filter_map(tcp).collect()
    }

    /// Each socket is asked first in its turn: a flood of one holds up no other.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        self.first += 1;
        for at in 0..self.sockets.len() {
            let socket = &self.sockets[(self.first + at) % self.sockets.len()];
            let accepted = match socket {
                Socket::Tcp(listener) => accept_tcp(listener, &mut self.peers, cx),
                Socket::Unix(socket) => accept_unix(socket, cx),
            };
            if accepted.is_ready() {
                return accepted;
            }
        }
        Poll::Pending
    }
}

impl Socket {
    fn name(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|error| error.to_string(), |it| format!("http://{it}"))
            }
            Self::Unix(socket) => format!("unix:{}", socket.path().display()),
        }
    }
}

fn accept_tcp(
    listener: &TcpListener,
    peers: &mut TcpPeers,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Accepted>> {
    let (stream, client) = ready!(listener.poll_accept(cx))?;
    Poll::Ready(peer(&stream, client, peers).map(|peer| (Box::new(stream) as Box<dyn Stream>, peer)))
}

/// A connection that was reset has no peer.
fn peer(stream: &TcpStream, client: SocketAddr, peers: &mut TcpPeers) -> io::Result<Option<Peer>> {
    Ok(match stream.take_error()? {
        None => peers.of(client, stream.local_addr()?),
        Some(_) => None,
    })
}

fn accept_unix(socket: &UnixSocket, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
    let (stream, peer) = ready!(socket.poll_accept(cx))?;
    Poll::Ready(Ok((Box::new(stream), Some(peer))))
}

impl Accept for Listeners {
    type Stream = Box<dyn Stream>;
    const MAX_OPEN: usize = MAX_PUBLIC;

    async fn accept(&mut self) -> io::Result<Accepted> {
        poll_fn(|cx| self.poll(cx)).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::http::unix_socket::GROUP;

    /// Two sockets with a crowd that waits at the first one.
    #[tokio::test]
    async fn each_listener_has_its_turn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let mut listeners = Listeners::new(vec![tcp], vec![UnixSocket::bind(&path, GROUP).unwrap()]);
        let mut crowd = Vec::new();
        for _ in 0..20 {
            crowd.push(TcpStream::connect(address).await.unwrap());
        }
        let _one = tokio::net::UnixStream::connect(&path).await.unwrap();
        let mut peers = Vec::new();
        for _ in 0..3 {
            let (mut stream, peer) = listeners.accept().await.unwrap();
            stream.write_all(b"x").await.unwrap();
            peers.push(peer.unwrap());
        }
        let own = Peer::user(rustix::process::geteuid().as_raw());
        assert_eq!(peers, [own, own, own], "the same user on both");
        assert!(listeners.names().ends_with(&format!(", unix:{}", path.display())), "{}", listeners.names());
    }
}
