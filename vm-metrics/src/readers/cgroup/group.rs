//! Finds the control group of a process, and reads its files.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::mount::Mount;
use crate::model::CgroupStats;
use crate::procfs::{ParseError, parse_flat_key, parse_limit, parse_pressure, unified_group};
use crate::readers::ReaderError;
use crate::readers::kept::is_gone;

/// Longest file that is read: `/proc/<pid>/cgroup` has a path for each hierarchy.
const MAX_LEN: u64 = 64 << 10;

/// Where a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a group that the daemon's mount of control groups does not show.
    Outside,
    /// The path of its group below the mount; empty for the root.
    Group(PathBuf),
}

/// A group that was read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) path: PathBuf,
    /// The kernel gives this number to no other group.
    pub(super) id: u64,
    pub(super) stats: CgroupStats,
}

/// Where the process with this directory in procfs is; `None` when it is gone, or its group.
pub(super) fn place(mount: &Mount, process: &Path) -> Result<Option<Place>, ReaderError> {
    let GroupFile { content: Some(content), .. } = GroupFile::read(process, "cgroup")? else {
        return Ok(None);
    };
    let Some(group) = unified_group(&content) else { return Ok(None) };
    let Some(mut group) = mount.below(Path::new(OsStr::from_bytes(group))) else {
        return Ok(Some(Place::Outside));
    };
    // libvirt puts threads of one process into groups of their own: what the process has as a whole is above these.
    while is_threaded(&mount.directory.join(&group))? && group.pop() {}
    Ok(Some(Place::Group(group)))
}

fn is_threaded(directory: &Path) -> Result<bool, ReaderError> {
    Ok(GroupFile::read(directory, "cgroup.type")?.content.as_deref() == Some(b"threaded\n"))
}

/// What the group at this path below the mount counts; `None` when it is gone.
pub(super) fn look(mount: &Mount, path: PathBuf) -> Result<Option<Reading>, ReaderError> {
    let directory = mount.directory.join(&path);
    let id = match fs::metadata(&directory) {
        Ok(directory) => directory.ino(),
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(ReaderError::io("stat", &directory, error)),
    };
    let file = |name| GroupFile::read(&directory, name);
    let pressure = |name| file(name)?.parse(parse_pressure).map(Option::unwrap_or_default);
    let cpu = file("cpu.stat")?;
    let stats = CgroupStats {
        cpu_periods: cpu.key("nr_periods")?,
        cpu_throttled_periods: cpu.key("nr_throttled")?,
        cpu_throttled_usec: cpu.key("throttled_usec")?,
        oom_kills: file("memory.events")?.key("oom_kill")?,
        cpu_pressure: pressure("cpu.pressure")?,
        memory_pressure: pressure("memory.pressure")?,
        io_pressure: pressure("io.pressure")?,
        memory_bytes: file("memory.current")?.parse(parse_limit)?.flatten(),
        memory_limit_bytes: file("memory.max")?.parse(parse_limit)?.flatten(),
    };
    Ok(Some(Reading { path, id, stats }))
}

struct GroupFile {
    path: PathBuf,
    /// `None` where there is no such file, or the kernel does not count what it has.
    content: Option<Vec<u8>>,
}

impl GroupFile {
    fn read(directory: &Path, name: &str) -> Result<Self, ReaderError> {
        let path = directory.join(name);
        let content = File::open(&path).and_then(|file| {
            let mut content = Vec::new();
            file.take(MAX_LEN).read_to_end(&mut content).map(|_| content)
        });
        match content {
            Ok(content) => Ok(Self { path, content: Some(content) }),
            Err(error) if is_gone(&error) || is_not_counted(&error) => Ok(Self { path, content: None }),
            Err(error) => Err(ReaderError::io("read", &path, error)),
        }
    }

    fn parse<T>(&self, parse: impl Fn(&[u8]) -> Result<T, ParseError>) -> Result<Option<T>, ReaderError> {
        let failed = |source| ReaderError::Parse { path: self.path.clone(), source };
        self.content.as_deref().map(parse).transpose().map_err(failed)
    }

    fn key(&self, key: &'static str) -> Result<Option<u64>, ReaderError> {
        Ok(self.parse(|content| parse_flat_key(content, key))?.flatten())
    }
}

/// Pressure that is switched off at boot.
fn is_not_counted(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::OPNOTSUPP)
}
