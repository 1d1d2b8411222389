//! Limits on connections: by peer, by time and in total.

use std::sync::Arc;

use axum::body::Bytes;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use super::*;
use crate::config::Listen;
use crate::http::listen;
use crate::http::listeners::{Listeners, MAX_PUBLIC};

/// Larger than all buffers between a handler and its peer.
const LARGE: usize = 1 << 20;

const LONG: Duration = Duration::from_secs(20);
const PATIENT: Patience = Patience { answer: Duration::from_secs(200), stall: Duration::from_secs(200) };

const SCRAPER: Peer = Peer::User(1000);
const ATTACKER: Peer = Peer::User(65534);

struct Queue(mpsc::UnboundedReceiver<(DuplexStream, Peer)>);

impl Accept for Queue {
    type Stream = DuplexStream;
    const MAX_OPEN: usize = MAX_PUBLIC;

    async fn accept(&mut self) -> io::Result<(DuplexStream, Option<Peer>)> {
        match self.0.recv().await {
            Some((stream, peer)) => Ok((stream, Some(peer))),
            None => std::future::pending().await,
        }
    }
}

/// A server in this process, with peers of one's choice.
struct Server {
    queue: mpsc::UnboundedSender<(DuplexStream, Peer)>,
    go_on: Arc<Notify>,
}

impl Server {
    fn start(patience: Patience) -> Self {
        let (queue, connections) = mpsc::unbounded_channel();
        let go_on = Arc::new(Notify::new());
        let wait = Arc::clone(&go_on);
        let router = Router::new()
            .route("/", get(async || "fine"))
            .route("/large", get(async || Bytes::from(vec![b'x'; LARGE])))
            .route(
                "/slow",
                get(async move || {
                    wait.notified().await;
                    "at last"
                }),
            );
        tokio::spawn(async move {
            let graceful = GracefulShutdown::new();
            let never = std::future::pending();
            accept_until(Queue(connections), &router, patience, &graceful, never).await;
        });
        Self { queue, go_on }
    }

    fn connect(&self, peer: Peer) -> DuplexStream {
        let (mine, theirs) = duplex(512);
        self.queue.send((theirs, peer)).unwrap();
        mine
    }

    async fn request(&self, peer: Peer, path: &str) -> DuplexStream {
        let mut stream = self.connect(peer);
        let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }
}

/// All that comes until the connection is closed.
async fn read(mut stream: DuplexStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await;
    // A connection that is closed in the middle may be an error or an end.
    let _ = read.expect("the connection is closed in the end");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_request_under_way_is_never_cut_off() {
    let server = Server::start(PATIENT);
    for attacker in [ATTACKER, SCRAPER] {
        let slow = server.request(SCRAPER, "/slow").await;
        let silent: Vec<_> = (0..150).map(|_| server.connect(attacker)).collect();
        for stream in silent.into_iter().take(100) {
            assert_eq!(read(stream).await, "", "{attacker}: closed for a newer one");
        }
        server.go_on.notify_one();
        assert!(read(slow).await.ends_with("at last"), "{attacker}");
    }
}

#[tokio::test]
async fn busy_connections_leave_room_for_other_peers() {
    let server = Server::start(PATIENT);
    let mut taken = Vec::new();
    for _ in 0..100 {
        taken.push(server.request(ATTACKER, "/large").await);
    }
    assert!(read(server.request(SCRAPER, "/").await).await.ends_with("fine"));
}

#[tokio::test]
async fn who_does_not_take_the_answer_is_closed() {
    let short = Duration::from_millis(300);
    for patience in [Patience { answer: short, ..PATIENT }, Patience { stall: short, ..PATIENT }] {
        let server = Server::start(patience);
        let slow = server.request(ATTACKER, "/large").await;
        tokio::time::sleep(short + LOOK * 4).await;
        let got = read(slow).await.len();
        assert!(got > 0 && got < LARGE, "{patience:?}: {got}");
        assert!(read(server.request(SCRAPER, "/large").await).await.len() > LARGE, "who reads gets all");
    }
}

#[tokio::test]
async fn who_takes_the_answer_slowly_gets_it() {
    let server = Server::start(Patience { stall: Duration::from_secs(5), ..PATIENT });
    let mut slow = server.request(SCRAPER, "/large").await;
    let mut got = 0;
    for _ in 0..40 {
        let mut some = [0; 100];
        got += slow.read(&mut some).await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert!(got + read(slow).await.len() > LARGE);
}

#[tokio::test]
async fn an_abandoned_response_closes_its_connection() {
    let cancel = super::super::activity::Cancel::default();
    let given = cancel.clone();
    let router = Router::new()
        .route("/", get(async move || (axum::Extension(given.clone()), Bytes::from(vec![b'x'; LARGE]))));
    let (mut mine, theirs) = duplex(512);
    let (activity, graceful) = (Activity::new(), GracefulShutdown::new());
    tokio::spawn(answer(theirs, router, activity.clone(), PATIENT, &graceful));
    mine.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut first = [0; 1];
    mine.read_exact(&mut first).await.unwrap();
    assert_eq!(activity.idle(), None, "the body is in memory, but not sent");
    cancel.cancel();
    tokio::time::sleep(LOOK * 4).await;
    assert!(read(mine).await.len() < LARGE);
}

#[tokio::test]
async fn a_connection_is_idle_after_its_answer() {
    let router = Router::new().route("/", get(async || "fine")).route("/empty", get(async || ()));
    let (mut mine, theirs) = duplex(512);
    let (activity, graceful) = (Activity::new(), GracefulShutdown::new());
    tokio::spawn(answer(theirs, router, activity.clone(), PATIENT, &graceful));
    for (path, end) in [("/", "fine"), ("/empty", "\r\n\r\n"), ("/", "fine")] {
        mine.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        while !answer.ends_with(end) {
            let mut bytes = [0; 512];
            let length = mine.read(&mut bytes).await.unwrap();
            assert!(length > 0, "closed after {answer:?}");
            answer.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
        }
        let idle = async {
            while activity.idle().is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, idle).await.unwrap();
        assert!(activity.had_request());
    }
}

fn local() -> Listeners {
    let address = "127.0.0.1:0".parse().unwrap();
    listen(&Listen::new(vec![address], "a test")).unwrap()
}

/// With the user's own socket: the whole way from the kernel's answer to the table.
#[tokio::test]
async fn tcp_peers_are_users() {
    let mut tcp = local();
    let address = tcp.tcp_addresses()[0];
    let stream = TcpStream::connect(address).await.unwrap();
    let (_, peer) = tcp.accept().await.unwrap();
    assert_eq!(peer, Some(Peer::user(rustix::process::getuid().as_raw())));
    drop(stream);
    drop(TcpStream::connect(address).await.unwrap());
    assert_eq!(tcp.accept().await.unwrap().1, None, "a closed connection has no peer");
}

#[tokio::test]
async fn a_reset_connection_has_no_peer() {
    let mut tcp = local();
    let stream = TcpStream::connect(tcp.tcp_addresses()[0]).await.unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
    assert_eq!(tcp.accept().await.unwrap().1, None);
}
