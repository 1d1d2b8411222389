//! The way to a VMM's socket, and whether the VMM listens there.

use std::os::fd::AsRawFd;

use rustix::fs::{FileType, Mode, fstat, open};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::super::files;
use super::super::proc_scan::Process;
use super::super::process_files::{ProcessPath, Workers};
use super::{AskError, Target};
use crate::host::Host;

/// The connection, and the process that listens at its other end.
pub async fn connect(
    host: &Host,
    workers: &Workers,
    target: &Target,
    uid: Option<u32>,
) -> Result<(UnixStream, Option<(u32, u64)>), AskError> {
    match target.process {
        Some(process) => {
            let stream = connect_to_process(host, workers, target, uid, process).await?;
            Ok((stream, Some(process)))
        }
        None => connect_to_path(host, target).await,
    }
}

/// A process names the path, so it is followed with the rights of the process. The reason of a failure is not passed on.
async fn connect_to_process(
    host: &Host,
    workers: &Workers,
    target: &Target,
    uid: Option<u32>,
    (pid, start_ticks): (u32, u64),
) -> Result<UnixStream, AskError> {
    let path = ProcessPath { host: host.clone(), pid, start_ticks, path: target.path.clone() };
    let unusable = |error| {
        tracing::debug!(pid, path = ?target.path, "cannot use an API socket: {error}");
        AskError::Unusable
    };
    let permit = workers.permit(uid).await.map_err(unusable)?;
    let (sender, connected) = oneshot::channel();
    // Nobody waits any more where the time is up.
    permit.connect(path, move |connected| drop(sender.send(connected))).map_err(unusable)?;
    let stream = connected.await.map_err(std::io::Error::other).flatten().map_err(unusable)?;
    UnixStream::from_std(stream).map_err(unusable)
}

/// The operator names the path.
async fn connect_to_path(host: &Host, target: &Target) -> Result<(UnixStream, Option<(u32, u64)>), AskError> {
    let located = open(&target.path, files::LOCATE, Mode::empty()).map_err(AskError::connect)?;
    let stat = fstat(&located).map_err(AskError::connect)?;
    if !FileType::from_raw_mode(stat.st_mode).is_socket() {
        return Err(AskError::NoSocket);
    }
    // The socket itself, whatever happens to its path, and however long that is.
    let through = Host::default().proc().join(format!("self/fd/{}", located.as_raw_fd()));
    let stream = UnixStream::connect(through).await.map_err(AskError::connect)?;
    let listens = stream.peer_cred().map_err(AskError::connect)?.pid();
    // Under another root the pids are those of another namespace.
    let listens = listens.filter(|_| *host == Host::default());
    Ok((stream, listens.and_then(|pid| identity(host, pid))))
}

fn identity(host: &Host, pid: i32) -> Option<(u32, u64)> {
    let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    let stat = Process::new(host, pid).stat().ok()?;
    Some((pid, stat.start_ticks))
}
