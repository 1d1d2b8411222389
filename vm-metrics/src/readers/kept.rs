//! Files that stay open between ticks: reading one costs half of opening it again, and a file of a process that is gone
//! says so instead of showing the next process with its pid.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::{ReadReport, ReaderError};
use crate::host::Host;
use crate::model::VmSet;
use crate::procfs::ParseError;

/// Longest file that a reader asks for; `/proc/<pid>/stat` is about 350 bytes.
const MAX_LEN: usize = 4096;

#[derive(Debug)]
pub(super) struct KeptFile {
    file: File,
    path: PathBuf,
}

impl KeptFile {
    /// `None` when there is no such file.
    pub(super) fn open(path: PathBuf) -> Result<Option<Self>, ReaderError> {
        Self::open_from(CWD, &path.clone(), path)
    }

    /// A file below an open directory; `path` is where that is.
    pub(super) fn open_at(directory: &OwnedFd, name: &str, path: &Path) -> Result<Option<Self>, ReaderError> {
        Self::open_from(directory, Path::new(name), path.join(name))
    }

    /// A FIFO in its place is opened too, but not waited for: it cannot be read.
    fn open_from(directory: impl AsFd, name: &Path, path: PathBuf) -> Result<Option<Self>, ReaderError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match openat(directory, name, flags, Mode::empty()).map_err(io::Error::from) {
            Ok(file) => Ok(Some(Self { file: file.into(), path })),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(ReaderError::Io { operation: "open", path, source: error }),
        }
    }

    /// Reads and parses the file; `None` when what it describes is gone.
    pub(super) fn read_parsed<T>(
        &self,
        buffer: &mut Buffer,
        parse: fn(&[u8]) -> Result<T, ParseError>,
    ) -> Result<Option<T>, ReaderError> {
        let Some(content) = self.read(buffer)? else { return Ok(None) };
        parse(content).map(Some).map_err(|source| ReaderError::Parse { path: self.path.clone(), source })
    }

    /// Reads the file from its start; `None` when what it describes is gone.
    pub(super) fn read<'b>(&self, buffer: &'b mut Buffer) -> Result<Option<&'b [u8]>, ReaderError> {
        match self.file.read_at(&mut buffer.0, 0) {
            Ok(len) => Ok(Some(&buffer.0[..len])),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(ReaderError::io("read", &self.path, error)),
        }
    }

    /// Reads a file that holds one number.
    pub(super) fn read_number(&self, buffer: &mut Buffer) -> Result<Option<u64>, ReaderError> {
        let Some(content) = self.read(buffer)? else { return Ok(None) };
        let text = String::from_utf8_lossy(content);
        match text.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(ReaderError::NotANumber {
                path: self.path.clone(),
                content: text.chars().take(40).collect(),
            }),
        }
    }
}

/// Where files are read into; one for all the files of a round.
#[derive(Debug)]
pub(super) struct Buffer([u8; MAX_LEN]);

impl Buffer {
    pub(super) fn new() -> Self {
        Self([0; MAX_LEN])
    }
}

/// No such file, no such process, no such device: it went away, which is no error.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH | Errno::NODEV | Errno::NXIO))
}

/// This process, or the whole host, has no descriptor left.
pub(super) fn is_out_of_files(error: &ReaderError) -> bool {
    let errno = error.errno().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

/// The same file of many processes, for example `stat`.
#[derive(Debug)]
pub(super) struct ProcessFiles {
    host: Host,
    name: &'static str,
    kept: HashMap<u32, KeptFile>,
}

impl ProcessFiles {
    pub(super) fn new(host: Host, name: &'static str) -> Self {
        Self { host, name, kept: HashMap::new() }
    }

    /// Reads the file of each VM's process. `parse` gives `None` for a process that has ended and is not reaped.
    pub(super) fn read_each<T>(
        &mut self,
        vms: &VmSet,
        parse: fn(&[u8]) -> Result<Option<T>, ParseError>,
        mut take: impl FnMut(u32, T),
    ) -> ReadReport {
        let mut report = ReadReport::default();
        let mut buffer = Buffer::new();
        for pid in vms.pids() {
            match self.read(pid, &mut buffer, parse) {
                Ok(Some(Some(parsed))) => {
                    take(pid, parsed);
                    report.items += 1;
                }
                Ok(_) => report.error(ReaderError::NoProcess { pid }),
                Err(error) => report.error(error),
            }
        }
        self.keep_only(vms);
        report
    }

    /// Reads and parses the file of a process; `None` when there is no such process.
    pub(super) fn read<T>(
        &mut self,
        pid: u32,
        buffer: &mut Buffer,
        parse: fn(&[u8]) -> Result<T, ParseError>,
    ) -> Result<Option<T>, ReaderError> {
        // Of a process that has ended, whose pid another one may have by now.
        if let Some(file) = self.kept.remove(&pid)
            && let Some(parsed) = file.read_parsed(buffer, parse)?
        {
            self.kept.insert(pid, file);
            return Ok(Some(parsed));
        }
        let Some(file) = self.open(pid)? else { return Ok(None) };
        let parsed = file.read_parsed(buffer, parse)?;
        if parsed.is_some() {
            self.kept.insert(pid, file);
        }
        Ok(parsed)
    }

    fn open(&self, pid: u32) -> Result<Option<KeptFile>, ReaderError> {
        let process = self.host.process(pid);
        let path = process.join(self.name);
        let file = KeptFile::open(path.clone())?;
        if file.is_none() && process.exists() {
            // A file that this kernel was built without.
            return Err(ReaderError::io("open", &path, Errno::NOENT.into()));
        }
        Ok(file)
    }

    /// Closes the files of all other processes.
    pub(super) fn keep_only(&mut self, vms: &VmSet) {
        let pids: HashSet<u32> = vms.pids().collect();
        self.retain(|pid| pids.contains(&pid));
    }

    pub(super) fn retain(&mut self, is_wanted: impl Fn(u32) -> bool) {
        self.kept.retain(|pid, _| is_wanted(*pid));
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FileType, mknodat};

    use super::*;

    #[test]
    fn a_fifo_does_not_hold_up_the_tick() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("statm");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let file = KeptFile::open(path).unwrap().unwrap();
        let error = file.read(&mut Buffer::new()).unwrap_err().to_string();
        assert!(error.contains("cannot read") && error.contains("statm"), "{error}");
    }
}
