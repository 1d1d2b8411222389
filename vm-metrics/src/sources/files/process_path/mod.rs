//! Opens files and sockets that a process names, with the rights of the process.
//!
//! The user of a process chooses its paths. So a path is followed only inside the root of the process, with its user and
//! groups, to plain files and sockets. Each path has a thread: a file system may never answer, and a thread never gets its
//! former rights back.

mod rights;
pub mod walk;
mod workers;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FileType, fstat};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use self::rights::{Access, Rights};
use self::walk::WalkStart;
pub use self::workers::{Permit, Workers};
use super::operators::Operators;
use crate::host::Host;
use crate::sources::files;
use crate::sources::process::{ProcessDir, ReadError};

/// How long a tick waits for the first paths of users who are not trusted.
pub const STRANGERS_PATIENCE: Duration = Duration::from_millis(50);

/// A path that a process names, as the process sees it.
#[derive(Clone, Debug)]
pub struct ProcessPath {
    pub host: Host,
    pub pid: u32,
    /// With the pid, the process: a later one with this pid is another.
    pub start_ticks: u64,
    pub path: PathBuf,
}

impl Permit {
    /// Reads a file of a process, at most `limit` bytes, and hands the result to `then`, on a thread of its own.
    ///
    /// A trusted user's process may also name one that it may not read, if only operators can have written it.
    pub fn read(
        mut self,
        file: ProcessPath,
        limit: u64,
        then: impl FnOnce(io::Result<Vec<u8>>) + Send + 'static,
    ) -> io::Result<()> {
        let operators = self.operators.take();
        self.run("read-path", move || then(file.read(limit, operators.as_ref())))
    }

    /// Connects to a socket at which a process listens, and hands the connection to `then`, on a thread of its own.
    pub fn connect(
        self,
        socket: ProcessPath,
        then: impl FnOnce(io::Result<UnixStream>) + Send + 'static,
    ) -> io::Result<()> {
        self.run("connect-path", move || then(socket.connect()))
    }
}

impl ProcessPath {
    fn read(&self, limit: u64, operators: Option<&Operators>) -> io::Result<Vec<u8>> {
        // First, for the thread does not get its own rights back.
        if let Some(file) = operators.and_then(|operators| self.locate_for(operators)) {
            return files::read_located(file, limit);
        }
        let (file, _) = self.locate(FileType::RegularFile, Access::Read)?;
        files::read_located(file, limit)
    }

    /// Opens a file with the rights of the daemon, if only operators can have written it.
    fn locate_for(&self, operators: &Operators) -> Option<OwnedFd> {
        let process = ProcessDir::new(&self.host, self.pid);
        let start = self.start(&process).ok()?;
        if process.stat().ok()?.start_ticks != self.start_ticks {
            return None;
        }
        let (file, authors) = operators.open_from(start, &self.path).ok()?;
        let is_plain = FileType::from_raw_mode(fstat(&file).ok()?.st_mode) == FileType::RegularFile;
        (is_plain && authors.are_operators().is_ok()).then_some(file)
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let (socket, rights) = self.locate(FileType::Socket, Access::Write)?;
        if !rights.may_own(fstat(&socket)?.st_uid) {
            return Err(refusal("the socket is another user's"));
        }
        let stream = connect_now(&socket)?;
        let peer = socket_peercred(&stream)?;
        // Nothing has been written yet. Under another procfs the pids may be those of another namespace.
        let pid = u32::try_from(peer.pid.as_raw_nonzero().get()).unwrap_or(0);
        if self.host == Host::default() && pid != self.pid {
            return Err(refusal("another process listens there"));
        }
        if !rights.may_own(peer.uid.as_raw()) {
            return Err(refusal("another user listens there"));
        }
        Ok(stream)
    }

    /// Finds the file without opening it, and leaves this thread with the rights of the process.
    fn locate(&self, wanted: FileType, access: Access) -> io::Result<(OwnedFd, Rights)> {
        let process = ProcessDir::new(&self.host, self.pid);
        // These need the daemon's rights, all that follows does without.
        let start = self.start(&process)?;
        let credentials = process.credentials().map_err(read_error)?;
        // The process was there before and is there after, so the directories are its own.
        if process.stat().map_err(read_error)?.start_ticks != self.start_ticks {
            return Err(refusal("the process has ended"));
        }
        let mut rights = Rights::take_on(credentials)?;
        let file = walk::locate(start, &self.path, &mut rights)?.file;
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != wanted {
            return Err(refusal("a file of another kind"));
        }
        rights.check(&file, &stat, access)?;
        Ok((file, rights))
    }

    fn start(&self, process: &ProcessDir) -> io::Result<WalkStart> {
        WalkStart::of(&self.path, &process.path("root"), &process.path("cwd"))
    }
}

/// It never waits for the one who listens.
fn connect_now(socket: &OwnedFd) -> io::Result<UnixStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&stream, &SocketAddrUnix::new(files::path_of(socket))?)?;
    Ok(UnixStream::from(stream))
}

fn refusal(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, reason)
}

fn read_error(problem: ReadError) -> io::Error {
    match problem {
        ReadError::Gone => refusal("the process has ended"),
        ReadError::Failed(error) => io::Error::other(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
