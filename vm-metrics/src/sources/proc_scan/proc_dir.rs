//! The list of all processes.

use std::path::Path;

use rustix::fs::{Dir, Mode, OFlags, open};
use rustix::io::{self, Errno};

use super::super::SourceError;

/// `/proc`, kept open: a host without free descriptors must not hide processes.
#[derive(Debug, Default)]
pub struct ProcDir {
    kept: Option<Dir>,
}

impl ProcDir {
    pub fn pids(&mut self, proc: &Path) -> Result<Vec<u32>, SourceError> {
        self.read(proc).map_err(|error| SourceError::io("list", proc, error.into()))
    }

    fn read(&mut self, proc: &Path) -> io::Result<Vec<u32>> {
        let dir = match (open_dir(proc), &mut self.kept) {
            (Ok(fresh), kept) => kept.insert(fresh),
            (Err(Errno::MFILE | Errno::NFILE), Some(dir)) => dir,
            (Err(error), _) => return Err(error),
        };
        dir.rewind();
        let mut pids = Vec::new();
        for entry in dir {
            pids.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
        }
        Ok(pids)
    }
}

/// Afresh at each call: something may have been mounted there since.
fn open_dir(path: &Path) -> io::Result<Dir> {
    Dir::new(open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}
