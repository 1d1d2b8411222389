//! Queries the daemon on this host for the commands.

mod believed;

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
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use crate::config::{ApiSocket, Settings};
use crate::documents::DaemonReport;
use crate::http::port_user::{self, Listener, Program, user_name};

pub(crate) use believed::Stranger;

/// Time limit for a daemon that hangs.
const DEADLINE: Duration = Duration::from_secs(10);

/// Pause before the next query to a daemon whose first tick has not ended.
const PAUSE: Duration = Duration::from_millis(100);

/// Limit of an answer, above the size for 10 000 VMs.
const LIMIT: usize = 64 << 20;

/// A daemon that has answered.
#[derive(Debug)]
pub(crate) struct LocalDaemon {
    runtime: Runtime,
    address: Address,
    /// The listener by the kernel's tables.
    listener: Listener,
}

#[derive(Clone, Debug)]
enum Address {
    Socket(PathBuf),
    Tcp(SocketAddr),
}

impl LocalDaemon {
    /// Tries the Unix socket, then the addresses; `None` if no daemon answers. `tell` gets each stranger that listens
    /// there.
    pub(crate) fn find(settings: &Settings, tell: impl Fn(&Stranger)) -> Option<Self> {
        let addresses = addresses(settings).into_iter().map(Address::Tcp);
        let find_at = |address| {
            let found = Self::find_at(address);
            found.inspect_err(|error| error.downcast_ref::<Stranger>().into_iter().for_each(&tell)).ok()
        };
        socket(settings).into_iter().chain(addresses).find_map(find_at)
    }

    /// Tries the Unix socket only, where the daemon shows all errors.
    ///
    /// # Errors
    /// The reason why it does not answer.
    pub(crate) fn find_by_socket(settings: &Settings) -> anyhow::Result<Self> {
        Self::find_at(socket(settings).context("its Unix socket is switched off (key socket in [http])")?)
    }

    fn find_at(address: Address) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(async { timeout(DEADLINE, address.listener()).await })??;
        believed::check(&listener, &address)?;
        let found = Self { runtime, address, listener };
        // Another program may occupy the port.
        found.report()?;
        Ok(found)
    }

    pub(crate) fn report(&self) -> anyhow::Result<DaemonReport> {
        self.json("/api/v1/health")
    }

    /// Process and user, if the process is known.
    pub(crate) fn peer(&self) -> Option<(u32, u32)> {
        Some((self.listener.program.as_ref()?.pid, self.listener.uid))
    }

    /// Process and user of the daemon, for the first line of a report.
    pub(crate) fn who(&self) -> String {
        let user = format!("user {}", user_name(self.listener.uid));
        self.peer().map_or_else(|| user.clone(), |(pid, _)| format!("process {pid}, {user}"))
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        serde_json::from_slice(&self.get(path)?)
            .with_context(|| format!("{self}: the answer to GET {path} is of another version"))
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
        write!(f, "the daemon at {}", self.address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "http://{address}"),
        }
    }
}

/// A fixture host has only the daemon that its configuration names.
fn addresses(settings: &Settings) -> Vec<SocketAddr> {
    let reachable = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    };
    let listens = settings.host.is_this_kernel().then(|| settings.listen.addresses());
    // A name that does not resolve has no address.
    let resolved = listens.into_iter().flatten().filter_map(|listen| listen.resolve().ok()).flatten();
    resolved.map(reachable).collect()
}

fn socket(settings: &Settings) -> Option<Address> {
    match &settings.http.socket {
        ApiSocket::Off => None,
        ApiSocket::Auto(path) | ApiSocket::On(path) => Some(Address::Socket(path.clone())),
    }
}

impl Address {
    async fn listener(&self) -> anyhow::Result<Listener> {
        match self {
            Self::Socket(path) => listener_of(&UnixStream::connect(path).await?),
            Self::Tcp(address) => port_user::find(*address).context("no process listens"),
        }
    }

    /// The listener is checked at each connection: another process may have replaced the one before.
    async fn get(&self, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        match self {
            Self::Socket(socket) => {
                let stream = UnixStream::connect(socket).await?;
                believed::check(&listener_of(&stream)?, self)?;
                get(stream, "localhost", path, || Ok(())).await
            }
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                let (near, far) = (stream.local_addr()?, stream.peer_addr()?);
                let check = || -> anyhow::Result<()> {
                    let answers = Listener { uid: believed::far_end(near, far)?, program: None };
                    Ok(believed::check(&answers, self)?)
                };
                get(stream, &address.to_string(), path, check).await
            }
        }
    }
}

fn listener_of(stream: &UnixStream) -> anyhow::Result<Listener> {
    let peer = stream.peer_cred()?;
    let program = peer.pid().and_then(|pid| Program::of(u32::try_from(pid).ok()?));
    Ok(Listener { uid: peer.uid(), program })
}

/// `check` is called when the answer begins, before there is much of it.
async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    path: &str,
    check: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let request = Request::get(path).header(header::HOST, host).body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        check()?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LIMIT).collect().await;
        Ok((status, body.map_err(|error| anyhow!(error))?.to_bytes()))
    };
    let (mut connection, mut answer) = (pin!(connection), pin!(answer));
    let mut is_open = true;
    loop {
        tokio::select! {
            answer = &mut answer => return answer,
            // Bytes that arrived before the end can still be read.
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use rustix::fs::{Uid, fchown};
    use vm_metrics_testkit::skip;

    use super::*;

    /// Answers all requests as a daemon does. One user listens, and one accepts.
    fn answering(listens: u32, accepts: u32) -> std::io::Result<Address> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        fchown(&listener, Some(Uid::from_raw(listens)), None)?;
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                fchown(&stream, Some(Uid::from_raw(accepts)), None).unwrap();
                thread::spawn(move || {
                    if stream.read(&mut [0; 1024]).unwrap() > 0 {
                        let body = "{\"version\":\"1\",\"parts\":[]}";
                        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                        stream.write_all((head + body).as_bytes()).unwrap();
                        let _ = stream.read(&mut [0]);
                    }
                });
            }
        });
        Ok(Address::Tcp(address))
    }

    /// Any user of the host can have the port while the daemon is away.
    #[test]
    fn only_root_and_oneself_are_believed() {
        let me = rustix::process::geteuid().as_raw();
        LocalDaemon::find_at(answering(me, me).unwrap()).unwrap();
        for (listens, accepts) in [(65_534, 65_534), (me, 65_534)] {
            let Ok(address) = answering(listens, accepts) else {
                return skip::skip("no right to give sockets away");
            };
            let error = LocalDaemon::find_at(address).unwrap_err();
            let stranger = error.downcast_ref::<Stranger>().unwrap_or_else(|| panic!("{error:#}"));
            assert!(stranger.to_string().contains("is not believed"), "{stranger}");
        }
    }
}
