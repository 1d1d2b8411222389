//! The way to a VMM's socket, and whether the VMM listens there.

use std::io;
use std::path::Path;

use rustix::fs::{FileType, fstat};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::QueryError;
use crate::host::Host;
use crate::sources::files;
use crate::sources::files::operators::Operators;
use crate::sources::files::process_path::{ProcessPath, Workers};
use crate::sources::process::ProcessDir;

/// A process names the path, so it is followed with the rights of the process. The reason of a failure is not passed on.
pub async fn connect_to_process(
    workers: &Workers,
    socket: ProcessPath,
    uid: Option<u32>,
) -> Result<UnixStream, QueryError> {
    let (pid, path) = (socket.pid, socket.path.clone());
    let unusable = |error| {
        tracing::debug!(pid, ?path, "cannot use an API socket: {error}");
        QueryError::Unusable
    };
    let permit = workers.permit(uid).await.map_err(unusable)?;
    let (sender, connected) = oneshot::channel();
    // Nobody waits any more where the time is up.
    permit.connect(socket, move |connected| drop(sender.send(connected))).map_err(unusable)?;
    let stream = connected.await.map_err(io::Error::other).flatten().map_err(unusable)?;
    UnixStream::from_std(stream).map_err(unusable)
}

/// The operator names the path. Sockets of other users do not count.
pub async fn connect_to_path(
    host: &Host,
    operators: &Operators,
    path: &Path,
) -> Result<(UnixStream, Option<(u32, u64)>), QueryError> {
    let (located, _) = operators.open(path).map_err(QueryError::connect)?;
    let stat = fstat(&located).map_err(QueryError::connect)?;
    if !FileType::from_raw_mode(stat.st_mode).is_socket() {
        return Err(QueryError::NoSocket);
    }
    let stream = UnixStream::connect(files::path_of(&located)).await.map_err(QueryError::connect)?;
    let peer = stream.peer_cred().map_err(QueryError::connect)?;
    if peer.uid() != stat.st_uid && !operators.include(peer.uid()) {
        return Err(QueryError::Unusable);
    }
    // Under another root the pids are those of another namespace.
    let listens = peer.pid().filter(|_| *host == Host::default());
    Ok((stream, listens.and_then(|pid| identity(host, pid))))
}

fn identity(host: &Host, pid: i32) -> Option<(u32, u64)> {
    let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    let stat = ProcessDir::new(host, pid).stat().ok()?;
    Some((pid, stat.start_ticks))
}
