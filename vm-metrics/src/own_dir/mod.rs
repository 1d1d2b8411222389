//! A private directory of the daemon, to which no other user can write.
//!
//! [`OwnDir::open`] refuses a path that another user could have made or could change. Files are named relative to the open
//! directory, and links are never followed. Only our own regular files are read or replaced.

mod error;
mod walk;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, Mode, OFlags, accessat, openat, renameat, unlinkat};
use rustix::io::Errno;

pub(crate) use error::DirError;

use walk::{check_file, check_own, look, walk};

/// For the daemon alone.
pub(crate) const PRIVATE: Mode = Mode::from_raw_mode(0o700);

/// Other users may look up names in it: sockets of other programs can be beside ours.
pub(crate) const SHARED: Mode = Mode::from_raw_mode(0o755);

/// A FIFO or a terminal under the file's name must not block the daemon.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Opens a directory that other users may share, such as the parent of ours. They can add files to it if it is sticky,
/// and cannot replace our files.
#[cfg(feature = "ebpf")]
pub(crate) fn check_way(path: &Path) -> Result<OwnedFd, DirError> {
    walk(path, None)
}

/// Whether this process may make files there; an error if not.
pub(crate) fn check_writable(dir: impl AsFd, path: &Path) -> Result<(), DirError> {
    accessat(dir, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        .map_err(|errno| DirError::io("write to", path, errno))
}

#[derive(Debug)]
pub(crate) struct OwnDir {
    fd: OwnedFd,
    path: PathBuf,
}

impl OwnDir {
    /// The directory as it is.
    pub(crate) fn open(path: &Path) -> Result<Self, DirError> {
        Self::own(path, walk(path, None)?)
    }

    /// Makes a missing directory with this mode. An existing one keeps its mode, if others may not write to it.
    pub(crate) fn make(path: &Path, mode: Mode) -> Result<Self, DirError> {
        Self::own(path, walk(path, Some(mode))?)
    }

    fn own(path: &Path, located: OwnedFd) -> Result<Self, DirError> {
        check_own(&located, path)?;
        let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(&located, ".", directory, Mode::empty())
            .map_err(|errno| DirError::io("open", path, errno))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Whether files can be made here; an error if not.
    pub(crate) fn check_writable(&self) -> Result<(), DirError> {
        check_writable(&self.fd, &self.path)
    }

    /// The whole file; an error if it is larger than `limit` bytes, or not our own regular file.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, DirError> {
        if !self.has_file(name)? {
            return Ok(None);
        }
        let path = self.path.join(name);
        let failed = |error: io::Error| DirError::io("read", &path, error);
        let file = openat(&self.fd, name, READ, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let mut content = Vec::new();
        File::from(file).take(limit + 1).read_to_end(&mut content).map_err(failed)?;
        if content.len() as u64 > limit {
            return Err(DirError::TooLong { path, limit });
        }
        Ok(Some(content))
    }

    /// Whether there is a regular file of ours under this name. Anything else there is an error.
    pub(crate) fn has_file(&self, name: &str) -> Result<bool, DirError> {
        let path = self.path.join(name);
        let Some(stat) = look(&self.fd, OsStr::new(name), &path)? else { return Ok(false) };
        check_file(&stat, &path).map(|()| true)
    }

    /// Replaces the whole file at once, with access for this process's user only.
    pub(crate) fn replace(&self, name: &str, content: &[u8]) -> Result<(), DirError> {
        self.has_file(name)?;
        let new = format!(".{name}.new");
        // A temporary file of a killed daemon.
        self.unlink(&new)?;
        let written = self.write_new(&new, content).and_then(|()| {
            renameat(&self.fd, new.as_str(), &self.fd, name)
                .map_err(|errno| DirError::io("replace", &self.path.join(name), errno))
        });
        if written.is_err() {
            // A full disk must not stay fuller than before. The first error is the one to report.
            let _ = self.unlink(&new);
        }
        written
    }

    fn write_new(&self, name: &str, content: &[u8]) -> Result<(), DirError> {
        let path = self.path.join(name);
        let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.fd, name, create, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| DirError::io("create", &path, errno))?;
        File::from(file).write_all(content).map_err(|error| DirError::io("write", &path, error))
    }

    /// Removes anything but a directory; false if the name is missing.
    pub(crate) fn unlink(&self, name: &str) -> Result<bool, DirError> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(DirError::io("remove", &self.path.join(name), errno)),
        }
    }
}

impl AsFd for OwnDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests;
