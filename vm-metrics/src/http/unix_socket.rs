//! A Unix socket that the daemon makes, and removes when it ends.

use std::fs::{self, Permissions};
use std::hash::{BuildHasher, RandomState};
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

/// Mode of a socket for the owner and root.
pub const OWNER: u32 = 0o600;

/// Mode of a socket that also the group may use.
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
    /// Makes the socket in a directory that no other user can write to, and makes a missing directory.
    ///
    /// # Errors
    /// `AddrInUse` when another process listens there, `AlreadyExists` when something else than a socket is there,
    /// `PermissionDenied` when the directory is not safe.
    pub fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        let (Some(parent), Some(_)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        OwnDir::make(parent, SHARED)?;
        let is_left_over = check_replaceable(path)?;
        // It has a temporary name until its mode is set.
        let unfinished = TemporarySocket::beside(parent);
        let made = &unfinished.0;
        let socket = new_socket()?;
        net::bind(&socket, &SocketAddrUnix::new(made)?)?;
        fs::set_permissions(made, Permissions::from_mode(mode))?;
        net::listen(&socket, BACKLOG)?;
        let file = fs::symlink_metadata(made).map(|made| (made.dev(), made.ino()))?;
        if is_left_over {
            fs::rename(made, path)?;
        } else {
            // Unlike a rename, a link does not replace the socket of another start.
            fs::hard_link(made, path).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => in_use(None),
                _ => error,
            })?;
        }
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

/// Removes the file, unless another daemon has replaced it.
impl Drop for UnixSocket {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|it| (it.dev(), it.ino()) == self.file);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// A socket under its temporary name, which is unique and removed on drop.
#[derive(Debug)]
struct TemporarySocket(PathBuf);

impl TemporarySocket {
    fn beside(parent: &Path) -> Self {
        // The keys of `RandomState` are random. A pid would not be unique: containers can share a directory.
        let number = RandomState::new().hash_one(());
        Self(parent.join(format!(".{number:016x}")))
    }
}

impl Drop for TemporarySocket {
    fn drop(&mut self) {
        // The socket has its final name now, or was never made.
        let _ = fs::remove_file(&self.0);
    }
}

/// True for a socket without a listener at the path, false for a free path, an error for all else.
fn check_replaceable(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is something that is no socket: remove it, or choose another path",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    let socket = new_socket()?;
    match net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => {
            let listener = UnixStream::from_std(socket.into())?.peer_cred()?;
            Err(in_use(listener.pid().and_then(|pid| Program::of(pid.cast_unsigned()))))
        }
        // A listener with a full queue, or of another socket type.
        Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(in_use(None)),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(true),
        Err(errno) => Err(errno.into()),
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
    use std::sync::Barrier;
    use std::thread;

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
        let _socket = UnixSocket::bind(&path, OWNER).unwrap();
        let error = UnixSocket::bind(&path, OWNER).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let own = format!("process {} (", std::process::id());
        assert!(error.to_string().starts_with(&own), "{error}");
    }

    /// Those of other types, too, which the kernel does not connect to a stream.
    #[tokio::test]
    async fn a_socket_of_any_type_in_use_stays() {
        let dir = tempfile::tempdir().unwrap();
        for kind in [SocketType::DGRAM, SocketType::SEQPACKET] {
            let path = dir.path().join(format!("{}.sock", kind.as_raw()));
            let socket = net::socket(AddressFamily::UNIX, kind, None).unwrap();
            net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
            if kind == SocketType::SEQPACKET {
                net::listen(&socket, 1).unwrap();
            }
            let before = fs::symlink_metadata(&path).unwrap().ino();
            let error = UnixSocket::bind(&path, OWNER).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{kind:?}: {error}");
            assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), before, "{kind:?}");
        }
    }

    /// Two daemons that start at once, again and again.
    #[test]
    fn only_one_of_many_starts_gets_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        for _ in 0..100 {
            let (start, inside) = (Barrier::new(4), runtime.handle());
            let bind = || {
                let _inside = inside.enter();
                start.wait();
                UnixSocket::bind(&path, OWNER)
            };
            let outcomes: Vec<io::Result<UnixSocket>> = thread::scope(|scope| {
                let starts: Vec<_> = (0..4).map(|_| scope.spawn(bind)).collect();
                starts.into_iter().map(|start| start.join().unwrap()).collect()
            });
            let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
            assert_eq!(won.len(), 1, "{lost:?}");
            for error in lost.into_iter().map(Result::unwrap_err) {
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
            }
            std::os::unix::net::UnixStream::connect(&path).unwrap();
            drop(won);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left over");
        }
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
