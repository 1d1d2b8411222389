//! Resolves a directory's path step by step, and refuses steps that another user controls.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf, absolute};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, mkdirat, openat, readlinkat, statat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::DirError;

/// As many as the kernel follows.
const MAX_LINKS: usize = 40;

/// Opens nothing for reading, which could disturb a device or a FIFO.
const LOCATE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Writable by the group or by all.
const WRITABLE: u32 = 0o022;

/// In such a directory no user may remove or rename files of another user.
const STICKY: u32 = 0o1000;

/// Directories on the way to the one that is made.
const PARENT_MODE: Mode = Mode::from_raw_mode(0o755);

/// Opens the directory. With a mode, makes it if it is missing.
///
/// Every directory and every link on the path belongs to root or to this process's user, and only they can change it.
/// So the path keeps naming the same directory.
pub(super) fn walk(path: &Path, make: Option<Mode>) -> Result<OwnedFd, DirError> {
    let path = absolute(path).map_err(|error| DirError::io("resolve", path, error))?;
    let mut way = Way::new(&path)?;
    while let Some(name) = way.names.pop_front() {
        way.step(&name, make)?;
    }
    Ok(way.dir)
}

/// Refuses a directory in which others may write, or which is theirs.
pub(super) fn check_own(dir: impl AsFd, path: &Path) -> Result<(), DirError> {
    check(&look_at(dir, path)?, path, WRITABLE)
}

struct Way {
    dir: OwnedFd,
    /// Path of `dir`, for error messages.
    at: PathBuf,
    /// Steps that are still to go.
    names: VecDeque<OsString>,
    links: usize,
}

impl Way {
    fn new(path: &Path) -> Result<Self, DirError> {
        let at = PathBuf::from("/");
        let dir = open_root()?;
        check_way(&dir, &at)?;
        Ok(Self { dir, at, names: steps(path), links: 0 })
    }

    fn step(&mut self, name: &OsStr, make: Option<Mode>) -> Result<(), DirError> {
        let path = self.at.join(name);
        let next = match openat(&self.dir, name, LOCATE | OFlags::DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) if make.is_some() => self.make(name, &path, make)?,
            Err(Errno::NOENT) => return Err(DirError::Absent { path }),
            Err(Errno::NOTDIR | Errno::LOOP) => return self.follow(name, path),
            opened => opened.map_err(|errno| DirError::io("open", &path, errno))?,
        };
        check_way(&next, &path)?;
        (self.dir, self.at) = (next, path);
        Ok(())
    }

    /// Another process may have been faster; its directory is checked like any other.
    fn make(&self, name: &OsStr, path: &Path, mode: Option<Mode>) -> Result<OwnedFd, DirError> {
        let mode = mode.filter(|_| self.names.is_empty()).unwrap_or(PARENT_MODE);
        match mkdirat(&self.dir, name, mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(DirError::io("create", path, errno)),
        }
        match openat(&self.dir, name, LOCATE | OFlags::DIRECTORY, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP) => Err(DirError::NotDirectory { path: path.to_owned() }),
            opened => opened.map_err(|errno| DirError::io("open", path, errno)),
        }
    }

    fn follow(&mut self, name: &OsStr, path: PathBuf) -> Result<(), DirError> {
        let failed = |errno| DirError::io("look at", &path, errno);
        let link = openat(&self.dir, name, LOCATE, Mode::empty()).map_err(failed)?;
        let stat = fstat(&link).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return Err(DirError::NotDirectory { path });
        }
        if !is_ours(&stat) {
            return Err(DirError::Link { path, owner: stat.st_uid });
        }
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(DirError::Links { path, limit: MAX_LINKS });
        }
        let target = readlinkat(&link, "", Vec::new()).map_err(failed)?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            (self.dir, self.at) = (open_root()?, PathBuf::from("/"));
        }
        for step in steps(&target).into_iter().rev() {
            self.names.push_front(step);
        }
        Ok(())
    }
}

/// Checks a directory on the path. Others may write to it only if they cannot replace our files.
fn check_way(dir: impl AsFd, path: &Path) -> Result<(), DirError> {
    let stat = look_at(dir, path)?;
    check(&stat, path, if stat.st_mode & STICKY == 0 { WRITABLE } else { 0 })
}

fn look_at(dir: impl AsFd, path: &Path) -> Result<Stat, DirError> {
    fstat(dir).map_err(|errno| DirError::io("look at", path, errno))
}

/// Refuses another owner, and these bits of the mode.
fn check(stat: &Stat, path: &Path, forbidden: u32) -> Result<(), DirError> {
    if !is_ours(stat) {
        return Err(DirError::owner(path, stat.st_uid));
    }
    if stat.st_mode & forbidden != 0 {
        return Err(DirError::Writable { path: path.to_owned(), mode: stat.st_mode & 0o7777 });
    }
    Ok(())
}

/// Checks that this is a regular file of ours, which only we may write.
pub(super) fn check_file(stat: &Stat, path: &Path) -> Result<(), DirError> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => None,
        FileType::Symlink => Some("a link"),
        FileType::Fifo => Some("a FIFO"),
        FileType::Directory => Some("a directory"),
        FileType::Socket => Some("a socket"),
        _ => Some("a device"),
    };
    match kind {
        Some(kind) => Err(DirError::NotFile { path: path.to_owned(), kind }),
        None => check(stat, path, WRITABLE),
    }
}

/// The metadata of this name, without following a link; `None` if it is missing.
pub(super) fn look(dir: impl AsFd, name: &OsStr, path: &Path) -> Result<Option<Stat>, DirError> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(DirError::io("look at", path, errno)),
    }
}

fn is_ours(stat: &Stat) -> bool {
    stat.st_uid == 0 || stat.st_uid == geteuid().as_raw()
}

fn open_root() -> Result<OwnedFd, DirError> {
    let root = Path::new("/");
    openat(rustix::fs::CWD, root, LOCATE | OFlags::DIRECTORY, Mode::empty())
        .map_err(|errno| DirError::io("open", root, errno))
}

fn steps(path: &Path) -> VecDeque<OsString> {
    let step = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(step).collect()
}
