//! Files that stay open between ticks.
//!
//! Reading costs half as much as opening again. A file of a terminated process gives an error, and never the next process
//! with that pid.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::ReaderError;
use crate::host::Host;
use crate::procfs::ParseError;

/// Limit of the bytes that are read; `/proc/<pid>/stat` is about 350 bytes.
const MAX_LEN: usize = 4096;

#[derive(Debug)]
pub(crate) struct CachedFile {
    file: File,
    path: PathBuf,
}

impl CachedFile {
    /// `None` when there is no such file.
    pub(crate) fn open(path: PathBuf) -> Result<Option<Self>, ReaderError> {
        Self::open_from(CWD, &path.clone(), path)
    }

    /// A file of a process; `None` when there is no such process.
    pub(crate) fn open_of(host: &Host, pid: u32, name: &str) -> Result<Option<Self>, ReaderError> {
        let process = host.process(pid);
        let path = process.join(name);
        let file = Self::open(path.clone())?;
        if file.is_none() && process.exists() {
            // A file that this kernel was built without.
            return Err(ReaderError::io("open", &path, Errno::NOENT.into()));
        }
        Ok(file)
    }

    /// A file below an open directory; `path` is where that is.
    pub(crate) fn open_at(directory: &OwnedFd, name: &str, path: &Path) -> Result<Option<Self>, ReaderError> {
        Self::open_from(directory, Path::new(name), path.join(name))
    }

    /// A FIFO in its place is opened without waiting, and cannot be read.
    fn open_from(directory: impl AsFd, name: &Path, path: PathBuf) -> Result<Option<Self>, ReaderError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match openat(directory, name, flags, Mode::empty()).map_err(io::Error::from) {
            Ok(file) => Ok(Some(Self { file: file.into(), path })),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(ReaderError::Io { operation: "open", path, source: error }),
        }
    }

    /// Reads and parses the file; `None` if its process or device is gone.
    pub(crate) fn read_parsed<T>(
        &self,
        buffer: &mut Buffer,
        parse: fn(&[u8]) -> Result<T, ParseError>,
    ) -> Result<Option<T>, ReaderError> {
        let Some(content) = self.read(buffer)? else { return Ok(None) };
        parse(content).map(Some).map_err(|source| ReaderError::Parse { path: self.path.clone(), source })
    }

    /// Reads the file from its start; `None` if its process or device is gone.
    pub(crate) fn read<'b>(&self, buffer: &'b mut Buffer) -> Result<Option<&'b [u8]>, ReaderError> {
        match self.file.read_at(&mut buffer.0, 0) {
            Ok(len) => Ok(Some(&buffer.0[..len])),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(ReaderError::io("read", &self.path, error)),
        }
    }

    /// Reads a file that holds one number.
    pub(crate) fn read_number(&self, buffer: &mut Buffer) -> Result<Option<u64>, ReaderError> {
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

/// The memory for reads; one for all files of a round.
#[derive(Debug)]
pub(crate) struct Buffer([u8; MAX_LEN]);

impl Buffer {
    pub(crate) fn new() -> Self {
        Self([0; MAX_LEN])
    }
}

/// No such file, process or device: it is gone, which is no error.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH | Errno::NODEV | Errno::NXIO))
}

/// This process, or the whole host, has no descriptor left.
pub(crate) fn is_out_of_files(error: &ReaderError) -> bool {
    let errno = error.errno().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
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
        let file = CachedFile::open(path).unwrap().unwrap();
        let error = file.read(&mut Buffer::new()).unwrap_err().to_string();
        assert!(error.contains("cannot read") && error.contains("statm"), "{error}");
    }
}
