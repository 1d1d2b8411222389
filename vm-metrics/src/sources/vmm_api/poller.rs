//! The thread that queries API sockets while the ticks go on.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::fs::{FileType, fstat};
use tokio::net::UnixStream;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::{DEADLINE, QueryError, Target, VmmInfo};
use crate::host::Host;
use crate::model::Hypervisor;
use crate::procfs::executable;
use crate::sources::files;
use crate::sources::files::operators::Operators;
use crate::sources::files::process_path::{ProcessPath, Workers};
use crate::sources::process::ProcessDir;

/// How VMMs of one kind are asked, over a connection.
pub type Query = fn(UnixStream) -> QueryFuture;

pub type QueryFuture = Pin<Box<dyn Future<Output = Result<VmmInfo, QueryError>> + Send>>;

/// A connection, and the process that listens at its other end.
type Connection = (UnixStream, Option<(u32, u64)>);

/// Whom to ask, and the user of that process.
pub type Request = (Target, Option<u32>);

/// The result of one request, and the process that answered.
#[derive(Debug)]
pub struct Reply {
    pub target: Target,
    pub result: Result<(VmmInfo, Option<(u32, u64)>), QueryError>,
}

/// Ends when it is dropped, without a wait.
#[derive(Debug)]
pub struct ApiPoller {
    requests: UnboundedSender<Vec<Request>>,
    answers: Receiver<Reply>,
    thread: JoinHandle<()>,
}

impl ApiPoller {
    pub fn spawn(host: Host, workers: Workers, query: Query) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (requests, asked) = unbounded_channel();
        let (answer, answers) = mpsc::channel();
        let context = QueryContext { host, operators: workers.operators.clone(), workers, query };
        let run = move || runtime.block_on(run(context, asked, answer));
        let thread = thread::Builder::new().name("vmm-api".to_owned()).spawn(run)?;
        Ok(Self { requests, answers, thread })
    }

    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    pub fn query(&self, requests: Vec<Request>) {
        // A thread that is gone shows at the next call of `is_running`.
        let _ = self.requests.send(requests);
    }

    pub fn answer(&self, patience: Duration) -> Option<Reply> {
        self.answers.recv_timeout(patience).ok()
    }
}

/// A socket that hangs delays no other: new questions are taken while answers are under way.
async fn run(context: QueryContext, mut asked: UnboundedReceiver<Vec<Request>>, answers: Sender<Reply>) {
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            requests = asked.recv() => {
                let Some(requests) = requests else { return };
                for (target, uid) in requests {
                    let context = context.clone();
                    under_way.spawn(async move {
                        let result = context.one(&target, uid).await;
                        Reply { target, result }
                    });
                }
            }
            Some(Ok(answer)) = under_way.join_next() => {
                let _ = answers.send(answer);
            }
        }
    }
}

#[derive(Clone)]
struct QueryContext {
    host: Host,
    operators: Operators,
    workers: Workers,
    query: Query,
}

impl QueryContext {
    /// The connection, and the process that listens at its other end.
    async fn connect(&self, target: &Target, uid: Option<u32>) -> Result<Connection, QueryError> {
        let Some((pid, start_ticks)) = target.process else {
            return self.connect_to_path(&target.path).await;
        };
        let socket = ProcessPath { host: self.host.clone(), pid, start_ticks, path: target.path.clone() };
        let unusable = |error| {
            tracing::debug!(pid, path = ?target.path, "cannot use an API socket: {error}");
            QueryError::Unusable
        };
        let stream = self.connect_to_process(socket, uid).await.map_err(unusable)?;
        Ok((stream, target.process))
    }

    /// A process names the path, so it is followed with the rights of the process. The reason of a failure is not passed on.
    async fn connect_to_process(&self, socket: ProcessPath, uid: Option<u32>) -> io::Result<UnixStream> {
        let permit = self.workers.permit(uid).await?;
        let (sender, connected) = oneshot::channel();
        // Nobody waits any more where the time is up.
        permit.connect(socket, move |connected| drop(sender.send(connected)))?;
        UnixStream::from_std(connected.await.map_err(io::Error::other).flatten()?)
    }

    /// The operator names the path. Sockets of other users do not count.
    async fn connect_to_path(&self, path: &Path) -> Result<Connection, QueryError> {
        let (located, _) = self.operators.open(path).map_err(QueryError::connect)?;
        let stat = fstat(&located).map_err(QueryError::connect)?;
        if !FileType::from_raw_mode(stat.st_mode).is_socket() {
            return Err(QueryError::NoSocket);
        }
        let stream = UnixStream::connect(files::path_of(&located)).await.map_err(QueryError::connect)?;
        let peer = stream.peer_cred().map_err(QueryError::connect)?;
        if peer.uid() != stat.st_uid && !self.operators.include(peer.uid()) {
            return Err(QueryError::Unusable);
        }
        // Under another root the pids are those of another namespace.
        let listens = peer.pid().filter(|_| self.host == Host::default());
        Ok((stream, listens.and_then(|pid| identity(&self.host, pid))))
    }

    async fn one(
        &self,
        target: &Target,
        uid: Option<u32>,
    ) -> Result<(VmmInfo, Option<(u32, u64)>), QueryError> {
        let until = Instant::now() + DEADLINE;
        let connected = timeout_at(until, self.connect(target, uid)).await;
        // A hanging file system on the path is not reported either.
        let late = if target.process.is_some() { QueryError::Unusable } else { QueryError::Late };
        let (stream, process) = connected.unwrap_or(Err(late))?;
        let mut vmm = timeout_at(until, (self.query)(stream)).await.unwrap_or(Err(QueryError::Late))?;
        // Who listens may have made the socket for a VMM.
        let is_vmm =
            |pid| target.process.is_some() || hypervisor(&self.host, pid) == Some(vmm.info.hypervisor);
        vmm.info.hypervisor_pid = process.map(|(pid, _)| pid).filter(|pid| is_vmm(*pid));
        Ok((vmm, process))
    }
}

fn identity(host: &Host, pid: i32) -> Option<(u32, u64)> {
    let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    let stat = ProcessDir::new(host, pid).stat().ok()?;
    Some((pid, stat.start_ticks))
}

fn hypervisor(host: &Host, pid: u32) -> Option<Hypervisor> {
    executable::hypervisor(&ProcessDir::new(host, pid).executable().ok()??)
}
