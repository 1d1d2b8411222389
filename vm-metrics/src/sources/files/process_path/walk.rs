//! Follows a path component by component, inside a root and by rules of the caller.
//!
//! The walk holds each directory open, and `..` goes back to the former one. So moved directories never lead it out of the
//! root. It does not follow links of procfs, which lead anywhere.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat, fstat, fstatfs, open, openat, readlinkat};
use rustix::io::Errno;

/// As the kernel has it.
const MAX_LINKS: usize = 40;

/// Directories above the working directory, and components of a path with all links in it.
const MAX_DEPTH: usize = 256;

/// As the kernel has it, with the NUL.
const MAX_PATH_BYTES: usize = 4096;

/// Where a walk begins.
#[derive(Debug)]
pub enum WalkStart {
    Root(OwnedFd),
    Cwd { root: OwnedFd, cwd: OwnedFd },
}

impl WalkStart {
    /// Of this path, with the root and the working directory at these places.
    pub fn of(path: &Path, root: &Path, cwd: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(root, flags, Mode::empty())?;
        Ok(match path.is_absolute() {
            true => Self::Root(root),
            false => Self::Cwd { root, cwd: open(cwd, flags, Mode::empty())? },
        })
    }
}

/// The permissions of a walk.
pub trait WalkRules {
    /// Whether a file may be asked for more than where it is mounted.
    fn look_at(&mut self, _found: &OwnedFd) -> io::Result<()> {
        Ok(())
    }

    /// Whether names are looked up in this directory.
    fn enter(&mut self, directory: &OwnedFd, stat: &Stat) -> io::Result<()>;

    /// Whether a link in this directory is followed.
    fn follow(&mut self, directory: &Stat, link: &Stat) -> io::Result<()>;
}

/// The end of a path.
#[derive(Debug)]
pub struct PathTarget {
    /// It is found and not opened: to open a device does something already.
    pub file: OwnedFd,
    /// From the root to the directory that has the file.
    pub directories: Vec<OwnedFd>,
}

/// Follows the path to its end.
pub fn locate(start: WalkStart, path: &Path, rules: &mut impl WalkRules) -> io::Result<PathTarget> {
    let path = path.as_os_str().as_bytes();
    if path.is_empty() || path.len() >= MAX_PATH_BYTES {
        return Err(Errno::NAMETOOLONG.into());
    }
    let mut walk = Walk::begin(start, rules)?;
    walk.append(path)?;
    walk.finish()
}

struct Walk<'a, R> {
    rules: &'a mut R,
    root: OwnedFd,
    /// From the root to where the walk is.
    directories: Vec<OwnedFd>,
    /// The first of them is the root: otherwise it is a working directory that does not lie below it.
    from_root: bool,
    /// The components that are left, the last one first.
    left: Vec<OsString>,
    steps: usize,
    links: usize,
}

impl<'a, R: WalkRules> Walk<'a, R> {
    fn begin(start: WalkStart, rules: &'a mut R) -> io::Result<Self> {
        let (root, directories, from_root) = match start {
            WalkStart::Root(root) => (root.try_clone()?, vec![root], true),
            WalkStart::Cwd { root, cwd } => match below(&root, &cwd, rules) {
                Some(directories) => (root, directories, true),
                None => (root, vec![cwd], false),
            },
        };
        Ok(Self { rules, root, directories, from_root, left: Vec::new(), steps: 0, links: 0 })
    }

    /// The components of a path or a link come before the remaining ones.
    fn append(&mut self, path: &[u8]) -> io::Result<()> {
        let components = path.rsplit(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
        self.left.extend(components.map(|name| OsString::from_vec(name.to_vec())));
        if self.left.len() > MAX_DEPTH { Err(Errno::NAMETOOLONG.into()) } else { Ok(()) }
    }

    fn finish(mut self) -> io::Result<PathTarget> {
        while let Some(name) = self.left.pop() {
            self.steps += 1;
            if self.steps > MAX_DEPTH {
                return Err(Errno::LOOP.into());
            }
            if name == ".." {
                self.go_up()?;
                continue;
            }
            if let Some(file) = self.step(&name)? {
                return Ok(PathTarget { file, directories: self.directories });
            }
        }
        let file = self.directories.pop().ok_or(Errno::NOENT)?;
        Ok(PathTarget { file, directories: self.directories })
    }

    fn go_up(&mut self) -> io::Result<()> {
        match (self.directories.len(), self.from_root) {
            (2.., _) => drop(self.directories.pop()),
            // The root is its own parent.
            (_, true) => {}
            (_, false) => return Err(Errno::XDEV.into()),
        }
        Ok(())
    }

    /// The file, where it is the last one.
    fn step(&mut self, name: &OsStr) -> io::Result<Option<OwnedFd>> {
        let directory = self.directories.last().ok_or(Errno::NOENT)?;
        let directory_stat = fstat(directory)?;
        self.rules.enter(directory, &directory_stat)?;
        let found =
            openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        self.rules.look_at(&found)?;
        let stat = fstat(&found)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => self.follow(&found, &stat, &directory_stat)?,
            FileType::Directory => self.directories.push(found),
            _ if self.left.is_empty() => return Ok(Some(found)),
            _ => return Err(Errno::NOTDIR.into()),
        }
        Ok(None)
    }

    fn follow(&mut self, link: &OwnedFd, stat: &Stat, directory: &Stat) -> io::Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS || fstatfs(link)?.f_type == PROC_SUPER_MAGIC {
            return Err(Errno::LOOP.into());
        }
        self.rules.follow(directory, stat)?;
        let target = readlinkat(link, "", Vec::new())?;
        if target.as_bytes().first() == Some(&b'/') {
            self.directories = vec![self.root.try_clone()?];
            self.from_root = true;
        }
        self.append(target.as_bytes())
    }
}

/// The directories from the root to the working directory, when this lies below it and may be left upwards.
fn below(root: &OwnedFd, cwd: &OwnedFd, rules: &mut impl WalkRules) -> Option<Vec<OwnedFd>> {
    let root_stat = fstat(root).ok()?;
    let same = |a: &Stat, b: &Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
    let mut directories = vec![cwd.try_clone().ok()?];
    while directories.len() <= MAX_DEPTH {
        let lowest = directories.last()?;
        let stat = fstat(lowest).ok()?;
        if same(&stat, &root_stat) {
            directories.reverse();
            return Some(directories);
        }
        rules.enter(lowest, &stat).ok()?;
        let parent =
            openat(lowest, "..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        if same(&fstat(&parent).ok()?, &stat) {
            return None;
        }
        directories.push(parent);
    }
    None
}
