//! The way to a VMM's socket: through the root and the working directory of its process, and nowhere else.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, fstat, open};
use tokio::net::UnixStream;

use super::super::files;
use super::super::proc_scan::Process;
use super::{AskError, Target};
use crate::host::Host;

/// The connection, and the process that listens at its other end.
pub async fn connect(host: &Host, target: &Target) -> Result<(UnixStream, Option<(u32, u64)>), AskError> {
    let located = locate(host, target).map_err(AskError::connect)?;
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
    match (target.process, listens) {
        (Some((pid, _)), Some(other)) if i64::from(pid) != i64::from(other) => {
            Err(AskError::OtherProcess(other))
        }
        (Some(process), _) => Ok((stream, Some(process))),
        (None, listens) => Ok((stream, listens.and_then(|pid| identity(host, pid)))),
    }
}

fn locate(host: &Host, target: &Target) -> std::io::Result<OwnedFd> {
    match target.process {
        Some((pid, _)) => Process::new(host, pid).locate(&target.path),
        None => Ok(open::<&Path>(&target.path, files::LOCATE, Mode::empty())?),
    }
}

fn identity(host: &Host, pid: i32) -> Option<(u32, u64)> {
    let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    let stat = Process::new(host, pid).stat().ok()?;
    Some((pid, stat.start_ticks))
}
