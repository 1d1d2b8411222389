//! Why nothing can be pinned, and what would make it possible.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::geteuid;
use thiserror::Error;

use crate::own_dir::DirError;
use crate::readers::ReaderError;

#[derive(Debug, Error)]
pub enum PinError {
    #[error("{} is not in a bpffs (mount one, or set readers.tap_ebpf.mount_bpffs)", dir.display())]
    NotBpffs { dir: PathBuf },
    #[error("another vm-metrics daemon{} holds {}: {advice}", process(*pid), dir.display())]
    Held { dir: PathBuf, pid: Option<u32>, advice: &'static str },
    #[error("readers.tap_ebpf.pin_dir: {0}")]
    Dir(#[from] DirError),
    #[error("readers.tap_ebpf.pin_dir: {source}: {advice}")]
    Denied { source: DirError, advice: String },
    #[error(
        "{} belongs to user {owner}: a daemon of that user pins there, and one of user {us} does not",
        dir.display()
    )]
    OtherUser { dir: PathBuf, owner: u32, us: u32 },
    #[error(
        "a daemon of another user has left {} ({source}): `vm-metrics detach` of root removes it",
        dir.display()
    )]
    LeftByOther { dir: PathBuf, source: DirError },
    #[error("{} is not empty: a bpffs mounted there would hide what is in it", dir.display())]
    NotEmpty { dir: PathBuf },
    #[error("cannot {operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
}

impl PinError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { operation, path: path.to_owned(), source: source.into() }
    }

    /// Why the directory of all pins is not there, or not ours; with what a daemon of an ordinary user needs.
    pub(crate) fn of_root(error: DirError, root: &Path) -> Self {
        let advice = match &error {
            DirError::Io { operation: "create" | "write to", source, .. } if is_denied(source) => {
                let (us, root) = (geteuid().as_raw(), root.display());
                format!(
                    "`install -d -m 0700 -o {us} {root}` of root makes it, as the unit in deploy/systemd does"
                )
            }
            DirError::Io { source, .. } if is_denied(source) => {
                "the way to it is closed, where CAP_DAC_READ_SEARCH helps".to_owned()
            }
            _ => return Self::Dir(error),
        };
        Self::Denied { source: error, advice }
    }

    /// Another user may be at work: not merely a host without a bpffs, or one that is closed to this process.
    pub(crate) fn is_interference(&self) -> bool {
        matches!(self, Self::Dir(error) if error.is_interference())
    }

    /// The error number of the kernel, where there was one.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Dir(error)
            | Self::Denied { source: error, .. }
            | Self::LeftByOther { source: error, .. } => error.errno(),
            Self::Io { source, .. } => source.raw_os_error(),
            Self::NotBpffs { .. } | Self::Held { .. } | Self::OtherUser { .. } | Self::NotEmpty { .. } => {
                None
            }
        }
    }
}

impl From<&PinError> for ReaderError {
    fn from(error: &PinError) -> Self {
        let (problem, errno, is_fault) = (error.to_string(), error.errno(), error.is_interference());
        Self::NoPins { problem, errno, is_fault }
    }
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

fn is_denied(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::ACCESS | Errno::PERM))
}
