//! Opens files that declare VMs, and finds the users who can have written them.
//!
//! Every user who may change a file, or a directory on its path, counts as an author. Operators are root, the user of the
//! daemon and the users in `[trust]`. Other users can declare only their own processes.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Stat, fstat};
use rustix::process::{getegid, geteuid};

use super::mounts::{Mounts, mount_of};
use super::process_path::walk::{PathTarget, WalkRules, WalkStart, locate};
use crate::model::Trust;
use crate::procfs::executable;
use crate::sources::process::lookup::{ProcessLookup, ProcessProgram};
use crate::sources::{SourceError, files};

/// The users who may declare VMs of all users.
#[derive(Clone, Debug)]
pub struct Operators {
    trust: Trust,
    daemon: u32,
    mounts: Mounts,
}

/// Who can have written a file.
#[derive(Debug, Default)]
pub struct Authors {
    /// Users who are no operators.
    users: BTreeSet<u32>,
    /// Members of a group, or all users.
    many: bool,
    /// When it was last written.
    modified: Option<SystemTime>,
    /// The directories from the root to the file, each by device and inode.
    directories: Vec<(u64, u64)>,
}

impl Default for Operators {
    fn default() -> Self {
        Self::new(Trust::default())
    }
}

impl Operators {
    pub fn new(trust: Trust) -> Self {
        Self { trust, daemon: geteuid().as_raw(), mounts: Mounts::default() }
    }

    /// Whether this user is one of them.
    pub fn include(&self, uid: u32) -> bool {
        uid == self.daemon || self.trust.is_trusted(Some(uid))
    }

    /// Opens a file or a directory, and finds its authors. Links of other users than operators are not followed.
    pub fn open(&self, path: &Path) -> io::Result<(OwnedFd, Authors)> {
        self.open_from(WalkStart::of(path, Path::new("/"), Path::new("."))?, path)
    }

    /// The same from another root.
    pub fn open_from(&self, start: WalkStart, path: &Path) -> io::Result<(OwnedFd, Authors)> {
        let mut way = PathAudit { operators: self, authors: Authors::default(), mount: None };
        let PathTarget { file, directories } = locate(start, path, &mut way)?;
        let stat = fstat(&file)?;
        way.add(&stat);
        way.authors.modified = modified(&stat);
        // Only operators may make files in an operator's directory.
        way.authors.many |= way.can_be_written_by_many(&stat);
        for directory in directories {
            let stat = fstat(&directory)?;
            way.add(&stat);
            way.authors.directories.push(id(&stat));
        }
        Ok((file, way.authors))
    }

    /// The content of an operator's file.
    pub fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>, SourceError> {
        let failed = |error| SourceError::io("read", path, error);
        let (file, authors) = self.open(path).map_err(failed)?;
        authors.are_operators().map_err(|problem| SourceError::content(path, problem))?;
        files::read_located(file, limit).map_err(failed)
    }

    /// An error where another user than an operator could put files into the directory.
    pub fn check_directory(&self, path: &Path) -> Result<(), SourceError> {
        let (_, authors) = self.open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SourceError::Absent { path: path.to_owned() },
            _ => SourceError::io("list", path, error),
        })?;
        authors.are_operators().map_err(|problem| SourceError::content(path, problem))
    }
}

impl Authors {
    pub fn modified(&self) -> Option<SystemTime> {
        self.modified
    }

    /// Whether only operators can have written it.
    pub fn are_operators(&self) -> Result<(), String> {
        match (self.many, self.users.first()) {
            (true, _) => Err(format!("other users can change it, so it does not count: {REMEDY}")),
            (false, Some(uid)) => Err(format!("user {uid} can change it, so it does not count: {REMEDY}")),
            (false, None) => Ok(()),
        }
    }

    /// Whether the authors may declare this process: they run it, and its root contains the file.
    pub fn may_name(&self, processes: &ProcessLookup, pid: u32) -> Result<(), String> {
        if self.users.is_empty() {
            return self.are_operators();
        }
        let is_own = processes.uid(pid).is_some_and(|uid| self.users.iter().all(|user| *user == uid));
        if self.many || !is_own || !self.is_below_root_of(processes, pid) {
            return self.are_operators();
        }
        Ok(())
    }

    /// In a jail there is nothing to name but its hypervisor.
    fn is_below_root_of(&self, processes: &ProcessLookup, pid: u32) -> bool {
        let Ok(ProcessProgram { name, root: Some(root), .. }) = processes.program(pid) else { return false };
        let is_hypervisor = name.as_deref().and_then(executable::hypervisor).is_some();
        self.directories.first() == Some(&root) || self.directories.contains(&root) && is_hypervisor
    }
}

/// With `[trust]`, users whom it does not name have no VMs any more.
const REMEDY: &str = "let root write it where nobody else can; [trust] may name its user too, \
                      but then it must name the users of all VMs (`vm-metrics doctor` lists them)";

/// The way to a file: all who could have led it elsewhere are authors of the file.
struct PathAudit<'o> {
    operators: &'o Operators,
    authors: Authors,
    /// That of the last file. Nothing else is on it but files of the same file system.
    mount: Option<u64>,
}

impl PathAudit<'_> {
    fn add(&mut self, stat: &Stat) {
        const STICKY: u32 = 0o1000;
        if !self.operators.include(stat.st_uid) {
            self.authors.users.insert(stat.st_uid);
        }
        // In a sticky directory users can make files, and cannot replace those of others.
        let is_sticky =
            FileType::from_raw_mode(stat.st_mode) == FileType::Directory && stat.st_mode & STICKY != 0;
        self.authors.many |= !is_sticky && self.can_be_written_by_many(stat);
    }

    fn can_be_written_by_many(&self, stat: &Stat) -> bool {
        const GROUP: u32 = 0o020;
        const OTHERS: u32 = 0o002;
        let of_group = stat.st_mode & GROUP != 0 && ![0, getegid().as_raw()].contains(&stat.st_gid);
        of_group || stat.st_mode & OTHERS != 0
    }
}

impl WalkRules for PathAudit<'_> {
    /// The user of a FUSE mount controls the reported owners, and may never answer.
    fn look_at(&mut self, found: &OwnedFd) -> io::Result<()> {
        let Some(mount) = mount_of(found)? else { return Ok(()) };
        if self.mount.replace(mount) == Some(mount) {
            return Ok(());
        }
        match self.operators.mounts.fuse_user(mount)? {
            Some(uid) if !self.operators.include(uid) => {
                let problem = format!("a file system of user {uid} is on the way");
                Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
            }
            _ => Ok(()),
        }
    }

    fn enter(&mut self, _: &OwnedFd, directory: &Stat) -> io::Result<()> {
        self.add(directory);
        Ok(())
    }

    fn follow(&mut self, _: &Stat, link: &Stat) -> io::Result<()> {
        if self.operators.include(link.st_uid) {
            return Ok(());
        }
        let problem = format!("a link of user {} is on the way, name the file itself", link.st_uid);
        Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
    }
}

fn modified(stat: &Stat) -> Option<SystemTime> {
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(u64::try_from(stat.st_mtime).ok()?, nanoseconds))
}

fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests;
