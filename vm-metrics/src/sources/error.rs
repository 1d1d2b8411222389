//! Errors of sources.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;

#[derive(Clone, Debug, Error)]
pub enum SourceError {
    #[error("cannot {operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: Arc<io::Error> },
    /// The files of the source are not on this host; with `enabled = "auto"` that is no fault.
    #[error("{} is not there", path.display())]
    Absent { path: PathBuf },
    #[error("{}: {problem}", path.display())]
    Content { path: PathBuf, problem: String },
    /// Root runs a command while the daemon of another user serves the socket: no fault.
    #[error("{} belongs to user {owner}: VMs are pushed to a daemon of that user", path.display())]
    OtherUser { path: PathBuf, owner: u32 },
    #[error("process {pid}: {problem}")]
    Process { pid: u32, problem: String },
    /// The VM does not run, which is no fault.
    #[error("process {pid} is not there, or has ended")]
    NoProcess { pid: u32 },
    /// From a list function that is not ours.
    #[error("{0}")]
    Lister(Arc<dyn Error + Send + Sync>),
    /// An asynchronous list function that has not answered; it is not asked again before it has.
    #[error("the list function has not answered within {}", humantime::format_duration(*.deadline))]
    Late { deadline: Duration },
    /// A call that has not returned.
    #[error(
        "it has not answered since {}, and is called again once that call has returned",
        humantime::format_rfc3339_seconds(*.since)
    )]
    Hangs { since: SystemTime },
    /// A source is asked on a thread of its own.
    #[error("cannot start a thread for it: {source}")]
    NoThread { source: Arc<io::Error> },
    #[error("the list function has panicked, or its runtime has ended")]
    Ended,
    #[error("and {count} more problems")]
    More { count: usize },
}

impl SourceError {
    pub fn io(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { operation, path: path.into(), source: Arc::new(source) }
    }

    pub fn content(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Content { path: path.into(), problem: problem.into() }
    }

    pub(super) fn process(pid: u32, problem: impl Into<String>) -> Self {
        Self::Process { pid, problem: problem.into() }
    }

    /// The error number of the kernel, where there was one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// That a VM does not run, or another user's daemon does: a fact, no fault of the source.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::NoProcess { .. } | Self::OtherUser { .. })
    }

    pub(super) fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { source, .. } => Some(source.kind()),
            _ => None,
        }
    }
}

/// The position of a JSON error. The message quotes nothing: the file may contain secrets.
pub fn json_problem(error: &serde_json::Error) -> String {
    let problem = if error.is_data() { "unexpected value" } else { "bad JSON" };
    format!("{problem} at line {}, column {}", error.line(), error.column())
}
