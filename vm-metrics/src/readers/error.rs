//! What can go wrong while reading, and the account of one round.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use thiserror::Error;

use crate::model::Excess;
use crate::net::NetError;
use crate::net::namespaces::FollowReport;
use crate::procfs::ParseError;

#[derive(Debug, Error)]
pub enum ReaderError {
    #[error("cannot {operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Parse { path: PathBuf, source: ParseError },
    #[error("{}: not a number: {content:?}", path.display())]
    NotANumber { path: PathBuf, content: String },
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(
        "the control group of process {pid} is not below the mount that the daemon sees: show it the host's /sys/fs/cgroup, \
         and run it in the host's control group namespace (docker --cgroupns=host)"
    )]
    HiddenGroup { pid: u32 },
    #[error("process {pid} is not there, or has ended")]
    NoProcess { pid: u32 },
    #[error(
        "{threads} threads of process {pid} are not read: not enough open files allowed (LimitNOFILE, ulimit -n)"
    )]
    NoRoom { pid: u32, threads: usize },
    #[error("process {pid} does not answer: its memory or its exec is held up")]
    Hangs { pid: u32 },
    #[error("{device}: no such device in this network namespace")]
    NoDevice { device: String },
    #[error("{device} is in another network namespace (net:[{netns}]), and no process of the VM is there")]
    OtherNamespace { device: String, netns: u64 },
    #[error(
        "{taps} TAPs wait for the eBPF programs, which come to about ten TAPs a second; meanwhile their own counters are read"
    )]
    Waiting { taps: usize },
    #[error(
        "{device} receives what the programs do not see: somebody took them off, or XDP comes first; they are put back"
    )]
    Lost { device: String },
    #[error("dropped bytes are not counted: {problem}")]
    NoDrops { problem: String, errno: Option<i32> },
    #[error(
        "no pins: {problem}; while the daemon is away only the devices' own counters go on (pin = false does without pins)"
    )]
    NoPins { problem: String, errno: Option<i32>, is_fault: bool },
    /// Of a reading that is not repeated at each tick.
    #[error(transparent)]
    Earlier(Arc<ReaderError>),
    #[error("the thread {thread} has ended")]
    ThreadEnded { thread: &'static str },
    #[error(
        "it rests while the host has more than {limit} threads: the files in /proc cost less, and are read"
    )]
    TooManyThreads { limit: u64 },
    #[error("{device}: {problem}")]
    Device { device: String, problem: String, errno: Option<i32> },
}

impl ReaderError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), source }
    }

    /// What was to be read does not exist: a fact about the VM or the kernel, no fault of the reader.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::Earlier(error) => error.is_absence(),
            Self::NoPins { is_fault, .. } => !is_fault,
            _ => matches!(
                self,
                Self::NoProcess { .. }
                    | Self::NoDevice { .. }
                    | Self::NoDrops { .. }
                    | Self::HiddenGroup { .. }
                    | Self::Waiting { .. }
                    | Self::TooManyThreads { .. }
            ),
        }
    }

    /// What it takes away is missed later, so the log warns of it.
    pub(crate) fn is_loss(&self) -> bool {
        match self {
            Self::Earlier(error) => error.is_loss(),
            _ => matches!(self, Self::NoPins { .. }),
        }
    }

    /// The error number of the kernel, where there was one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            Self::Net(error) => error.errno(),
            Self::Device { errno, .. } | Self::NoDrops { errno, .. } | Self::NoPins { errno, .. } => *errno,
            Self::NoProcess { .. } => Some(Errno::SRCH.raw_os_error()),
            Self::NoDevice { .. } => Some(Errno::NODEV.raw_os_error()),
            Self::NoRoom { .. } => Some(Errno::MFILE.raw_os_error()),
            Self::Earlier(error) => error.errno(),
            Self::ThreadEnded { .. }
            | Self::Hangs { .. }
            | Self::HiddenGroup { .. }
            | Self::Waiting { .. }
            | Self::TooManyThreads { .. }
            | Self::Lost { .. }
            | Self::OtherNamespace { .. }
            | Self::Parse { .. }
            | Self::NotANumber { .. } => None,
        }
    }
}

/// The account of one round of a reader.
#[derive(Debug, Default)]
pub struct ReadReport {
    /// Things read.
    pub items: usize,
    /// Things that a reader before this one has read in the same round.
    pub read_before: usize,
    /// Things that are not there, or may not be read.
    pub errors: usize,
    /// Things found at the start whose turn has not come.
    pub waiting: usize,
    /// Those of the errors that say that something is not there.
    pub absent: usize,
    /// How often since its start the kernel had more to say than the reader could hear; `None` where it does not listen.
    pub lost: Option<u64>,
    /// Whether what counts stays when the daemon leaves; `None` where nothing could stay.
    pub pinned: Option<bool>,
    /// The first of the errors, a fault if there is one; the others are most often the same.
    pub first_error: Option<ReaderError>,
    /// Demands of users beyond their share.
    pub overuse: Excess,
}

impl ReadReport {
    /// Adds the namespaces of VMs that could not be opened.
    pub(crate) fn add_namespaces(&mut self, followed: FollowReport) {
        self.overuse.merge(followed.overuse);
        followed.problems.into_iter().for_each(|problem| self.error(problem.into()));
    }

    pub(crate) fn error(&mut self, error: ReaderError) {
        let first_fault = !error.is_absence() && self.errors == self.absent;
        self.errors += 1;
        self.absent += usize::from(error.is_absence());
        if first_fault || self.first_error.is_none() {
            self.first_error = Some(error);
        }
    }
}
