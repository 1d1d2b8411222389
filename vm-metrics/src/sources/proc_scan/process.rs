//! The files of one process, each read with a limit.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat, openat2};

use super::super::{SourceError, files};
use super::cmdline;
use super::executable;
use crate::host::Host;
use crate::procfs::{Stat, parse_stat};

/// A line of some 50 numbers.
const STAT_LIMIT: u64 = 4 << 10;
/// The kernel's usual limit for all arguments together.
const CMDLINE_LIMIT: u64 = 2 << 20;
/// A Firecracker config is a few hundred bytes.
const CONFIG_LIMIT: u64 = 1 << 20;

/// Why a process could not be looked at.
#[derive(Debug)]
pub enum Unread {
    /// It ended in the meantime: it is simply not there.
    Gone,
    Failed(SourceError),
}

#[derive(Debug)]
pub struct Process<'a> {
    pub host: &'a Host,
    pub pid: u32,
}

impl<'a> Process<'a> {
    pub fn new(host: &'a Host, pid: u32) -> Self {
        Self { host, pid }
    }

    /// Another process on the same host.
    pub fn other(&self, pid: u32) -> Self {
        Self { pid, ..*self }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.host.process(self.pid).join(file)
    }

    pub fn stat(&self) -> Result<Stat, Unread> {
        let path = self.path("stat");
        let content = read(&path, STAT_LIMIT)?;
        parse_stat(&content)
            .map_err(|error| Unread::Failed(SourceError::Content { path, problem: error.to_string() }))
    }

    /// How many descriptors it has: the size of the directory, which is 0 before Linux 6.2.
    pub fn descriptor_count(&self) -> Option<u64> {
        fs::metadata(self.path("fd")).ok().map(|directory| directory.len())
    }

    pub fn argv(&self) -> Result<Vec<String>, Unread> {
        Ok(cmdline::split(&read(&self.path("cmdline"), CMDLINE_LIMIT)?))
    }

    /// The file name of what it runs. `None` for a kernel thread, and for a process that has ended.
    ///
    /// By `exe`, for anyone may change `comm` and the arguments; by the arguments where `exe` may not be
    /// read, which is so for processes of other users without `CAP_SYS_PTRACE`.
    pub fn executable(&self) -> Result<Option<String>, Unread> {
        let path = self.path("exe");
        match fs::read_link(&path) {
            Ok(target) => Ok(Some(executable::file_name(&target.to_string_lossy()).to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Ok(self.argv()?.first().map(|program| executable::file_name(program).to_owned()))
            }
            Err(error) => Err(unread("read link", path, error)),
        }
    }

    pub fn read_config(&self, file: &str) -> Result<Vec<u8>, SourceError> {
        let located = self.locate(Path::new(file));
        located.and_then(|located| files::read_located(located, CONFIG_LIMIT)).map_err(|error| {
            let path = self.path(seen_from(Path::new(file))).join(file.trim_start_matches('/'));
            SourceError::io("read", path, error)
        })
    }

    /// A file as the process sees it, whatever its root and working directory are.
    pub fn locate(&self, file: &Path) -> io::Result<OwnedFd> {
        let from = self.path(seen_from(file));
        let directory = open(&from, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(if file.is_absolute() {
            // A link inside a chroot must not lead to a file outside.
            openat2(&directory, file, files::LOCATE, Mode::empty(), ResolveFlags::IN_ROOT)?
        } else {
            openat(&directory, file, files::LOCATE, Mode::empty())?
        })
    }
}

fn seen_from(file: &Path) -> &'static str {
    if file.is_absolute() { "root" } else { "cwd" }
}

/// For files that the kernel makes.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Unread> {
    files::read_kernel(path, limit).map_err(|error| unread("read", path, error))
}

pub fn unread(operation: &'static str, path: impl Into<PathBuf>, error: io::Error) -> Unread {
    let reaped = error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error());
    if reaped || error.kind() == io::ErrorKind::NotFound {
        return Unread::Gone;
    }
    Unread::Failed(SourceError::io(operation, path, error))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_descriptor_more_shows_in_their_number() {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "echo; read go; exec 5</dev/null; echo; read go"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut orders, answers) = (shell.stdin.take().unwrap(), shell.stdout.take().unwrap());
        let mut answers = BufReader::new(answers).lines();
        let host = Host::default();
        let process = Process::new(&host, shell.id());
        answers.next().unwrap().unwrap();
        let before = process.descriptor_count().unwrap();
        orders.write_all(b"go\n").unwrap();
        answers.next().unwrap().unwrap();
        assert_eq!(process.descriptor_count(), Some(before + 1), "from Linux 6.2 on");
        drop(orders);
        shell.wait().unwrap();
        assert_eq!(process.descriptor_count(), None);
    }
}
