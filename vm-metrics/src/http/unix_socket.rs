//! A Unix socket that the daemon makes, and removes when it ends.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};

use super::peer::Peer;
use super::port_user::Program;
use crate::own_dir::{OwnDir, SHARED};

/// Who may connect: the owner and root.
pub const OWNER: u32 = 0o600;

/// Also the group.
pub const GROUP: u32 = 0o660;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Listens at a path.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
}

impl UnixSocket {
    /// Makes the socket in a directory in which no other user can put anything; the directory is made where it is missing.
    ///
    /// # Errors
    /// `AddrInUse` when another process listens there, `AlreadyExists` when something else than a socket is there,
    /// `PermissionDenied` when the directory is not safe.
    pub fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        OwnDir::make(parent, SHARED)?;
        check_replaceable(path)?;
        // Under a name of its own until only its users may connect; the rename takes the place of one that is left over.
        let mut unfinished = OsString::from(".");
        unfinished.push(name);
        unfinished.push(".new");
        let unfinished = parent.join(unfinished);
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = new_socket()?;
        net::bind(&socket, &SocketAddrUnix::new(&unfinished)?)?;
        fs::set_permissions(&unfinished, Permissions::from_mode(mode))?;
        net::listen(&socket, BACKLOG)?;
        let file = fs::symlink_metadata(&unfinished).map(|made| (made.dev(), made.ino()))?;
        fs::rename(&unfinished, path)?;
        Ok(Self { listener: UnixListener::from_std(socket.into())?, path: path.to_owned(), file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection and its user.
    pub(super) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(UnixStream, Peer)>> {
        let (stream, _) = ready!(self.listener.poll_accept(cx))?;
        let peer = stream.peer_cred().map_or(Peer::Unknown, |peer| Peer::user(peer.uid()));
        Poll::Ready(Ok((stream, peer)))
    }
}

/// Another daemon may have taken the place of the file.
impl Drop for UnixSocket {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|it| (it.dev(), it.ino()) == self.file);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Whether there is nothing at the path, or a socket on which nobody listens.
fn check_replaceable(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is something that is no socket: remove it, or choose another path",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    let socket = new_socket()?;
    match net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => {
            let listener = UnixStream::from_std(socket.into())?.peer_cred()?;
            Err(in_use(listener.pid().and_then(|pid| Program::of(pid.cast_unsigned()))))
        }
        // It has no time to answer; this does not wait for it.
        Err(Errno::AGAIN) => Err(in_use(None)),
        Err(_) => Ok(()),
    }
}

fn in_use(program: Option<Program>) -> io::Error {
    let who = program.map_or_else(|| "another process".to_owned(), |program| program.to_string());
    io::Error::new(io::ErrorKind::AddrInUse, format!("{who} listens there: stop it, or choose another path"))
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn nothing_is_bound_where_others_may_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/push.sock");
        for wanted in [OWNER, GROUP] {
            let socket = UnixSocket::bind(&path, wanted).unwrap();
            assert_eq!(mode(&path), wanted);
            drop(socket);
        }
        fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o1777)).unwrap();
        let error = UnixSocket::bind(&path, OWNER).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("/run has mode 1777, so others may write to it"), "{error}");
    }

    #[tokio::test]
    async fn a_socket_that_is_left_over_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("push.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        fs::write(dir.path().join(".push.sock.new"), "").unwrap();
        let _socket = UnixSocket::bind(&path, OWNER).unwrap();
        let error = UnixSocket::bind(&path, OWNER).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let own = format!("process {} (", std::process::id());
        assert!(error.to_string().starts_with(&own), "{error}");
    }

    #[tokio::test]
    async fn a_path_that_is_no_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "kept").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for path in [&file, &link] {
            let error = UnixSocket::bind(path, OWNER).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{error}");
        }
        assert_eq!(fs::read_to_string(&link).unwrap(), "kept");
    }

    #[tokio::test]
    async fn the_end_removes_only_its_own_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        drop(UnixSocket::bind(&path, OWNER).unwrap());
        assert!(!path.exists());
        let former = UnixSocket::bind(&path, OWNER).unwrap();
        fs::remove_file(&path).unwrap();
        let _next = UnixSocket::bind(&path, OWNER).unwrap();
        drop(former);
        assert!(path.exists());
    }
}
