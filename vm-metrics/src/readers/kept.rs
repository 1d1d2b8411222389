//! Files that stay open between ticks: reading one costs half of opening it again, and a file of a process that is gone
//! says so instead of showing the next process with its pid.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::ReaderError;
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
    /// `None` when there is no such file. A FIFO in its place is opened too, but not waited for: it cannot be read.
    pub(super) fn open(path: PathBuf) -> Result<Option<Self>, ReaderError> {
        let flags = OFlags::NONBLOCK.union(OFlags::NOCTTY).bits().cast_signed();
        match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => Ok(Some(Self { file, path })),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(ReaderError::Io { operation: "open", path, source: error }),
        }
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

    /// Reads and parses the file of a process; `None` when there is no such process.
    pub(super) fn read<T>(
        &mut self,
        pid: u32,
        buffer: &mut Buffer,
        parse: fn(&[u8]) -> Result<T, ParseError>,
    ) -> Result<Option<T>, ReaderError> {
        let file = match self.kept.remove(&pid) {
            Some(file) => Some(file),
            None => KeptFile::open(self.host.process(pid).join(self.name))?,
        };
        let Some(file) = file else { return Ok(None) };
        let Some(content) = file.read(buffer)? else { return Ok(None) };
        let parsed =
            parse(content).map_err(|source| ReaderError::Parse { path: file.path.clone(), source })?;
        self.kept.insert(pid, file);
        Ok(Some(parsed))
    }

    /// Closes the files of all other processes.
    pub(super) fn keep_only(&mut self, vms: &VmSet) {
        let pids: HashSet<u32> = vms.pids().collect();
        self.kept.retain(|pid, _| pids.contains(pid));
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

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
