//! Asks the daemon that runs on this host, for the commands that show what it sees.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use crate::config::{ApiSocket, Settings};
use crate::doctor::part::Part;

/// A daemon that hangs must not hold up who asks.
const DEADLINE: Duration = Duration::from_secs(10);

/// Between two questions to a daemon whose first tick has not ended.
const PAUSE: Duration = Duration::from_millis(100);

/// Longer than what is said of 100 000 VMs.
const LIMIT: usize = 512 << 20;

/// One that has answered.
#[derive(Debug)]
pub(crate) struct LocalDaemon {
    runtime: Runtime,
    address: Address,
    /// Who listens there, as the kernel says: process and user.
    peer: Option<(u32, u32)>,
}

#[derive(Clone, Debug)]
enum Address {
    Socket(PathBuf),
    Tcp(SocketAddr),
}

/// How the daemon says it does.
#[derive(Debug, Deserialize)]
pub(crate) struct DaemonReport {
    pub(crate) version: Option<String>,
    pub(crate) parts: Vec<Part>,
}

impl LocalDaemon {
    /// Asks at the Unix socket, else at the addresses; `None` where no daemon answers.
    pub(crate) fn find(settings: &Settings) -> Option<Self> {
        let addresses = addresses(settings).into_iter().map(Address::Tcp);
        socket(settings).into_iter().chain(addresses).find_map(|address| Self::find_at(address).ok())
    }

    /// Asks at the Unix socket only, where it tells all.
    ///
    /// # Errors
    /// Why it did not answer.
    pub(crate) fn find_by_socket(settings: &Settings) -> anyhow::Result<Self> {
        Self::find_at(socket(settings).context("its Unix socket is switched off (key socket in [http])")?)
    }

    fn find_at(address: Address) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let peer = runtime.block_on(async { timeout(DEADLINE, address.peer()).await })??;
        let found = Self { runtime, address, peer };
        // Another program may have the port.
        found.report()?;
        Ok(found)
    }

    pub(crate) fn report(&self) -> anyhow::Result<DaemonReport> {
        self.json("/api/v1/health")
    }

    /// Process and user; `None` where it was asked over TCP.
    pub(crate) fn peer(&self) -> Option<(u32, u32)> {
        self.peer
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        serde_json::from_slice(&self.get(path)?)
            .with_context(|| format!("{self}: the answer to GET {path} is not that of this version"))
    }

    /// The body of the answer.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Bytes> {
        let until = Instant::now() + DEADLINE;
        self.runtime
            .block_on(async {
                loop {
                    let answer = timeout(DEADLINE, self.address.get(path)).await;
                    let (status, body) =
                        answer.map_err(|_| anyhow!("no answer within {DEADLINE:?}")).flatten()?;
                    match status {
                        StatusCode::OK => return Ok(body),
                        // It has just started.
                        StatusCode::SERVICE_UNAVAILABLE if Instant::now() < until => sleep(PAUSE).await,
                        _ => bail!("GET {path}: {status}: {}", String::from_utf8_lossy(&body)),
                    }
                }
            })
            .with_context(|| format!("{self}"))
    }
}

impl fmt::Display for LocalDaemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Socket(path) => write!(f, "the daemon at {}", path.display()),
            Address::Tcp(address) => write!(f, "the daemon at http://{address}"),
        }
    }
}

/// A host made of files has no daemon but the one that its configuration names.
fn addresses(settings: &Settings) -> Vec<SocketAddr> {
    let reachable = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    };
    let listens = settings.host.is_this_kernel().then_some(settings.listen);
    listens.into_iter().map(reachable).collect()
}

fn socket(settings: &Settings) -> Option<Address> {
    match &settings.http.socket {
        ApiSocket::Off => None,
        ApiSocket::Auto(path) | ApiSocket::On(path) => Some(Address::Socket(path.clone())),
    }
}

impl Address {
    async fn peer(&self) -> anyhow::Result<Option<(u32, u32)>> {
        match self {
            Self::Socket(path) => {
                let peer = UnixStream::connect(path).await?.peer_cred()?;
                Ok(peer.pid().and_then(|pid| u32::try_from(pid).ok()).map(|pid| (pid, peer.uid())))
            }
            Self::Tcp(address) => {
                TcpStream::connect(address).await?;
                Ok(None)
            }
        }
    }

    async fn get(&self, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        match self {
            Self::Socket(socket) => get(UnixStream::connect(socket).await?, "localhost", path).await,
            Self::Tcp(address) => get(TcpStream::connect(address).await?, &address.to_string(), path).await,
        }
    }
}

async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    path: &str,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let request = Request::get(path).header(header::HOST, host).body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LIMIT).collect().await;
        Ok((status, body.map_err(|error| anyhow!(error))?.to_bytes()))
    };
    let (mut connection, mut answer) = (pin!(connection), pin!(answer));
    let mut is_open = true;
    loop {
        tokio::select! {
            answer = &mut answer => return answer,
            // What was received before its end is still there to be read.
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}
