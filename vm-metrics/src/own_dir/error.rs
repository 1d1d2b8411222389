//! Errors of an unsafe directory or file.

use std::io;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use thiserror::Error;

/// Each message has the finding and a remedy. The caller adds the key of the configuration.
#[derive(Debug, Error)]
pub enum DirError {
    #[error("{} is not there", path.display())]
    Absent { path: PathBuf },
    #[error(
        "{} belongs to user {owner}, so only a daemon of that user may use it: {}",
        path.display(),
        owner_advice(*us)
    )]
    Owner { path: PathBuf, owner: u32, us: u32 },
    #[error("{} has mode {mode:04o}, so others may write to it: {}", path.display(), mode_advice(path, *mode))]
    Writable { path: PathBuf, mode: u32 },
    #[error("{} is a link that user {owner} made: remove it", path.display())]
    Link { path: PathBuf, owner: u32 },
    #[error("{} leads through more than {limit} links", path.display())]
    Links { path: PathBuf, limit: usize },
    #[error("{} is no directory", path.display())]
    NotDirectory { path: PathBuf },
    #[error("{} is {kind}, and no regular file: remove it", path.display())]
    NotFile { path: PathBuf, kind: &'static str },
    #[error("{} is longer than {limit} bytes", path.display())]
    TooLong { path: PathBuf, limit: u64 },
    #[error("cannot {operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
}

impl DirError {
    pub(super) fn io(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { operation, path: path.to_owned(), source: source.into() }
    }

    pub(super) fn owner(path: &Path, owner: u32) -> Self {
        Self::Owner { path: path.to_owned(), owner, us: geteuid().as_raw() }
    }

    /// The user whose daemon uses the directory, where root asks who runs no daemon here.
    pub fn owner_for_root(&self) -> Option<u32> {
        match self {
            Self::Owner { owner, us: 0, .. } => Some(*owner),
            _ => None,
        }
    }

    /// Another user may be at work: not merely a directory that is missing or closed to this process.
    #[cfg(any(test, feature = "ebpf"))]
    pub fn is_interference(&self) -> bool {
        match self {
            Self::Owner { .. }
            | Self::Writable { .. }
            | Self::Link { .. }
            | Self::Links { .. }
            | Self::NotDirectory { .. }
            | Self::NotFile { .. } => true,
            Self::Absent { .. } | Self::TooLong { .. } | Self::Io { .. } => false,
        }
    }

    /// The error number of the kernel, where there was one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// A daemon of an ordinary user may run on this host: then root must leave its directory alone.
fn owner_advice(us: u32) -> String {
    match us {
        0 => "start the daemon as that user, or choose another directory".to_owned(),
        us => format!("choose another directory, or chown this one to user {us} if only vm-metrics uses it"),
    }
}

/// Other programs need a directory like `/tmp` or `/run` as it is.
fn mode_advice(path: &Path, mode: u32) -> &'static str {
    const STICKY: u32 = 0o1000;
    let is_shared = mode & STICKY != 0 || path.components().count() <= 2;
    if is_shared {
        "leave it so, and choose a directory for vm-metrics alone, such as /run/vm-metrics"
    } else {
        "chmod go-w, if only vm-metrics uses it; else choose another directory"
    }
}

/// For callers with I/O errors; the text keeps the reason.
impl From<DirError> for io::Error {
    fn from(error: DirError) -> Self {
        let kind = match &error {
            DirError::Io { source, .. } => source.kind(),
            DirError::Absent { .. } => io::ErrorKind::NotFound,
            _ => io::ErrorKind::PermissionDenied,
        };
        Self::new(kind, error)
    }
}
