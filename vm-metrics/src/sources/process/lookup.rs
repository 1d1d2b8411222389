//! Reads processes that sources name, with a time limit.
//!
//! Any user can make a process whose files in procfs never answer (`patient`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{ProcessDir, ReadError};
use crate::host::Host;
use crate::model::Trust;
use crate::patient::{Job, Patient};
use crate::procfs::Stat;
use crate::sources::SourceError;

/// How long a process may take to answer.
const PATIENCE: Duration = Duration::from_millis(100);

/// Processes that are known at most. Each keeps a file open.
const MAX_KNOWN: usize = 4096;

/// Shared by all sources.
#[derive(Clone, Debug)]
pub struct ProcessLookup {
    host: Host,
    trust: Trust,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    patient: Patient<(Host, u32, Detail), ProcessReading>,
    /// Processes that have not ended since they were read.
    known: HashMap<u32, CachedProcess>,
}

#[derive(Debug)]
struct CachedProcess {
    stat: Stat,
    /// Becomes readable when the process ends.
    pidfd: OwnedFd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    Stat,
    Program,
    User,
}

#[derive(Debug)]
struct ProcessReading {
    stat: Result<Stat, ReadError>,
    /// Only where it is wanted.
    program: Option<Result<ProcessProgram, ReadError>>,
    uid: Option<u32>,
}

/// The program of a process, its arguments and its root.
#[derive(Debug)]
pub struct ProcessProgram {
    /// The name of its file; `None` for a process that has ended.
    pub name: Option<String>,
    pub argv: Vec<String>,
    /// The numbers of the device and the inode of its root directory, where that may be known.
    pub root: Option<(u64, u64)>,
}

impl ProcessLookup {
    pub fn new(host: Host, trust: Trust) -> Self {
        let patient = Patient::new("facts", PATIENCE, read);
        let inner = Arc::new(Mutex::new(Inner { patient, known: HashMap::new() }));
        Self { host, trust, inner }
    }

    /// The process's start time, parent and session. As long as the process lives they are read once.
    pub fn stat(&self, pid: u32) -> Result<Stat, ReadError> {
        let mut inner = self.lock();
        if let Some(known) = inner.known.get(&pid) {
            if lives(&known.pidfd) {
                return Ok(known.stat);
            }
            inner.known.remove(&pid);
        }
        // Before the file is read: so the descriptor and the file are of the same process, if that still lives.
        let pidfd = (self.host == Host::default()).then(|| open_pidfd(pid)).flatten();
        let stat = self.ask(&mut inner, pid, Detail::Stat)?.stat?;
        if let Some(pidfd) = pidfd.filter(|pidfd| !stat.is_dead() && lives(pidfd)) {
            if inner.known.len() >= MAX_KNOWN {
                inner.known.clear();
            }
            inner.known.insert(pid, CachedProcess { stat, pidfd });
        }
        Ok(stat)
    }

    /// The user who runs the process.
    pub fn uid(&self, pid: u32) -> Option<u32> {
        self.ask(&mut self.lock(), pid, Detail::User).ok()?.uid
    }

    /// The program of the process.
    pub fn program(&self, pid: u32) -> Result<ProcessProgram, ReadError> {
        let mut inner = self.lock();
        self.ask(&mut inner, pid, Detail::Program)?.program.unwrap_or(Err(ReadError::Gone))
    }

    fn ask(&self, inner: &mut Inner, pid: u32, wanted: Detail) -> Result<ProcessReading, ReadError> {
        let uid = ProcessDir::new(&self.host, pid).owner();
        let is_trusted = self.trust.is_trusted(uid);
        let job = Job { pid, uid, is_trusted, question: (self.host.clone(), pid, wanted) };
        let answer = inner.patient.each(vec![job]).pop().flatten();
        answer.ok_or_else(|| ReadError::Failed(SourceError::process(pid, "it does not answer")))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ProcessLookup {
    fn default() -> Self {
        Self::new(Host::default(), Trust::default())
    }
}

fn read((host, pid, wanted): (Host, u32, Detail)) -> ProcessReading {
    let process = ProcessDir::new(&host, pid);
    let program =
        || Ok(ProcessProgram { name: process.executable()?, argv: process.argv()?, root: root(&process) });
    let uid = (wanted == Detail::User).then(|| process.uid()).flatten();
    ProcessReading { stat: process.stat(), program: (wanted == Detail::Program).then(program), uid }
}

fn root(process: &ProcessDir) -> Option<(u64, u64)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(process.path("root"), flags, Mode::empty()).and_then(fstat).ok()?;
    Some((root.st_dev, root.st_ino))
}

fn open_pidfd(pid: u32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok()
}

fn lives(pidfd: &OwnedFd) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&at_once)) == Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_known_until_it_ends() {
        let facts = ProcessLookup::default();
        let mut child =
            Command::new("cat").arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // The kernel shows the arguments only after the end of the exec.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let pid = child.id();
        let first = facts.stat(pid).unwrap();
        assert_eq!(facts.stat(pid).unwrap(), first);
        assert_eq!(facts.lock().known.len(), 1);
        let program = facts.program(pid).unwrap();
        assert_eq!((program.name.is_some(), program.root.is_some()), (true, true));
        assert_eq!(program.argv, ["cat", "-"]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(facts.stat(pid), Err(ReadError::Gone)));
        assert_eq!(facts.lock().known.len(), 0);
    }
}
