//! Finds the control group of a process, and reads its files.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::mount::Mount;
use crate::model::CgroupStats;
use crate::procfs::{ParseError, parse_flat_key, parse_limit, parse_pressure, unified_group};
use crate::readers::ReaderError;
use crate::readers::cached_file::is_gone;

/// Longest file that is read: `/proc/<pid>/cgroup` has a path for each hierarchy.
const MAX_LEN: u64 = 64 << 10;

/// The group of a process.
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
    /// The processes in it; `None` if they are too many.
    pub(super) members: Option<Vec<u32>>,
    pub(super) stats: CgroupStats,
}

/// The group of the process with this directory in procfs; `None` if it is gone.
pub(super) fn place(mount: &Mount, process: &Path) -> Result<Option<Place>, ReaderError> {
    let GroupFile { content: Some(content), .. } = GroupFile::read(process.join("cgroup"))? else {
        return Ok(None);
    };
    let Some(group) = unified_group(&content) else { return Ok(None) };
    let Some(mut group) = mount.below(Path::new(OsStr::from_bytes(group))) else {
        return Ok(Some(Place::Outside));
    };
    // libvirt puts threads of one process into their own groups; the whole process is in the one above these.
    while is_threaded(&mount.directory.join(&group))? && group.pop() {}
    Ok(Some(Place::Group(group)))
}

fn is_threaded(directory: &Path) -> Result<bool, ReaderError> {
    Ok(GroupFile::read(directory.join("cgroup.type"))?.content.as_deref() == Some(b"threaded\n"))
}

/// Reads the group at this path below the mount; `None` when it is gone.
pub(super) fn look(mount: &Mount, path: PathBuf) -> Result<Option<Reading>, ReaderError> {
    Group::open(mount, path)?.map(Group::read).transpose()
}

/// An open group, which stays the same while its files are read, even if another group takes its name.
struct Group {
    /// Below the mount.
    path: PathBuf,
    directory: File,
    full_path: PathBuf,
}

impl Group {
    fn open(mount: &Mount, path: PathBuf) -> Result<Option<Self>, ReaderError> {
        let full_path = mount.directory.join(&path);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat(CWD, &full_path, flags, Mode::empty()).map_err(io::Error::from) {
            Ok(directory) => Ok(Some(Self { path, directory: directory.into(), full_path })),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(ReaderError::io("open", &full_path, error)),
        }
    }

    fn read(self) -> Result<Reading, ReaderError> {
        let directory = self.directory.metadata();
        let id = directory.map_err(|error| ReaderError::io("stat", &self.full_path, error))?.ino();
        let pressure = |name| self.file(name)?.parse(parse_pressure).map(Option::unwrap_or_default);
        let cpu = self.file("cpu.stat")?;
        let stats = CgroupStats {
            cpu_periods: cpu.key("nr_periods")?,
            cpu_throttled_periods: cpu.key("nr_throttled")?,
            cpu_throttled_usec: cpu.key("throttled_usec")?,
            oom_kills: self.file("memory.events")?.key("oom_kill")?,
            cpu_pressure: pressure("cpu.pressure")?,
            memory_pressure: pressure("memory.pressure")?,
            io_pressure: pressure("io.pressure")?,
            memory_bytes: self.file("memory.current")?.parse(parse_limit)?.flatten(),
            memory_limit_bytes: self.file("memory.max")?.parse(parse_limit)?.flatten(),
        };
        // The last file: processes that came during the reading are in it.
        let members = self.file("cgroup.procs")?.pids();
        Ok(Reading { path: self.path, id, members, stats })
    }

    fn file(&self, name: &str) -> Result<GroupFile, ReaderError> {
        GroupFile::read_at(&self.directory, Path::new(name), self.full_path.join(name))
    }
}

struct GroupFile {
    path: PathBuf,
    /// `None` without such a file, or if the kernel does not count its numbers.
    content: Option<Vec<u8>>,
}

impl GroupFile {
    fn read(path: PathBuf) -> Result<Self, ReaderError> {
        Self::read_at(CWD, &path.clone(), path)
    }

    fn read_at(directory: impl AsFd, name: &Path, path: PathBuf) -> Result<Self, ReaderError> {
        let file = openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let content = file.map_err(io::Error::from).and_then(|file| {
            let mut content = Vec::new();
            File::from(file).take(MAX_LEN).read_to_end(&mut content).map(|_| content)
        });
        match content {
            Ok(content) => Ok(Self { path, content: Some(content) }),
            Err(error) if is_gone(&error) || is_not_counted(&error) => Ok(Self { path, content: None }),
            Err(error) => Err(ReaderError::io("read", &path, error)),
        }
    }

    /// One a line; `None` if the file exceeds the limit.
    fn pids(&self) -> Option<Vec<u32>> {
        let content = String::from_utf8_lossy(self.content.as_deref().unwrap_or_default());
        let is_whole = (content.len() as u64) < MAX_LEN;
        is_whole.then(|| content.lines().filter_map(|line| line.parse().ok()).collect())
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_group_is_read_from_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        let make = |limit: &str| {
            fs::create_dir(dir.path().join("a")).unwrap();
            fs::write(dir.path().join("a/memory.max"), limit).unwrap();
        };
        make("1\n");
        let group = Group::open(&Mount::at(dir.path()), "a".into()).unwrap().unwrap();
        fs::rename(dir.path().join("a"), dir.path().join("old")).unwrap();
        make("2\n");
        assert_eq!(group.read().unwrap().stats.memory_limit_bytes, Some(1));
    }

    #[test]
    fn a_truncated_list_of_members_counts_as_none() {
        let file = |content: Vec<u8>| GroupFile { path: PathBuf::new(), content: Some(content) };
        assert_eq!(file(b"7\n12\n".to_vec()).pids(), Some(vec![7, 12]));
        assert_eq!(file(b"1234567\n".repeat(8192)).pids(), None);
    }
}
