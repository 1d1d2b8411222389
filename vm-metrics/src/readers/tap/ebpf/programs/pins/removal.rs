//! Removes pins that no daemon holds, those of other versions and users among them.
//!
//! What is removed may belong to another user, so no link is followed and nothing outside the bpffs is touched.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use vm_metrics_common::ABI_VERSION;

use super::{LoadId, PinError, is_bpffs, lock, parent_of};
use crate::own_dir::{DirError, check_way};

/// A directory itself, not what a link in its place leads to.
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes the pins of this version that a daemon of this namespace has left, or all that nobody holds; its own may not be
/// held by one that runs.
pub(crate) fn remove_all(root: &Path, own: LoadId, all: bool) -> Result<Vec<PathBuf>, PinError> {
    let Some(pins) = open_root(root)? else { return Ok(Vec::new()) };
    let mut removed = Vec::new();
    let dir = own.dir(root);
    if pins.remove(&dir)? {
        removed.push(dir);
    }
    removed.extend(remove_unheld(root, own.netns)?);
    if all {
        removed.extend(all_dirs(root)?.into_iter().filter(|dir| pins.is_removed(dir)));
    }
    // Fails while there are versions of others in it.
    let _ = fs::remove_dir(root);
    Ok(removed)
}

/// Removes the pins that a daemon of this namespace has left for others, and that nobody holds.
pub(crate) fn remove_unheld(root: &Path, daemon: u64) -> Result<Vec<PathBuf>, PinError> {
    let Some(pins) = open_root(root)? else { return Ok(Vec::new()) };
    let is_ours =
        |dir: &PathBuf| abi_of(dir) == Some(ABI_VERSION) && dir.to_string_lossy().contains(&by(daemon));
    Ok(all_dirs(root)?.into_iter().filter(is_ours).filter(|dir| pins.is_removed(dir)).collect())
}

/// Removes a directory of ours.
pub(crate) fn remove_dir(dir: &Path) -> Result<(), PinError> {
    remove_below(CWD, dir, dir)
}

/// Says which pins are there that are not for this version to touch.
pub(crate) fn report_other_versions(root: &Path) {
    let dirs = all_dirs(root).unwrap_or_else(|error| {
        tracing::warn!("{error}");
        Vec::new()
    });
    for other in dirs.iter().filter(|dir| abi_of(dir) != Some(ABI_VERSION)) {
        tracing::warn!(
            "{} is of another version: left alone (`vm-metrics detach --all` removes it)",
            other.display()
        );
    }
}

/// The namespaces that pins are for.
pub(crate) fn namespaces(root: &Path) -> Result<HashSet<u64>, PinError> {
    Ok(all_dirs(root)?.iter().filter_map(|dir| netns_of(dir)).collect())
}

/// The namespace in the name of pins.
pub(crate) fn netns_of(dir: &Path) -> Option<u64> {
    dir.file_name()?.to_str()?.split('-').nth(1)?.parse().ok()
}

/// In the name of the pins that a daemon has for another namespace: where it is itself.
pub(crate) fn by(daemon: u64) -> String {
    format!("-by-{daemon}-")
}

/// The names in a directory.
pub(crate) fn names_in(dir: &Path) -> Result<Vec<OsString>, PinError> {
    let fd = openat(CWD, dir, DIRECTORY, Mode::empty()).map_err(|errno| PinError::io("open", dir, errno))?;
    let names = names(&fd, dir)?;
    Ok(names.iter().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned()).collect())
}

/// The directory that holds all pins.
struct Root(OwnedFd);

/// `None` where it is not there, or not in a bpffs. A link on the way must be one of root or of this user.
fn open_root(root: &Path) -> Result<Option<Root>, PinError> {
    let Some(name) = root.file_name() else { return Ok(None) };
    let parent = match check_way(parent_of(root)) {
        Err(DirError::Absent { .. }) => return Ok(None),
        way => way?,
    };
    match openat(parent, name, DIRECTORY, Mode::empty()) {
        Ok(dir) => Ok(is_bpffs(&dir, root)?.then_some(Root(dir))),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            let dir = openat(check_way(root)?, ".", DIRECTORY, Mode::empty());
            let dir = dir.map_err(|errno| PinError::io("open", root, errno))?;
            Ok(is_bpffs(&dir, root)?.then_some(Root(dir)))
        }
        Err(errno) => Err(PinError::io("open", root, errno)),
    }
}

impl Root {
    /// False where there is no such directory.
    fn remove(&self, path: &Path) -> Result<bool, PinError> {
        let name = path.file_name().unwrap_or_default();
        let dir = match openat(&self.0, name, DIRECTORY, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(PinError::io("open", path, errno)),
        };
        lock(&dir, path, "stop it first")?;
        remove_below(&self.0, Path::new(name), path).map(|()| true)
    }

    /// Whether it was there, held by nobody, and is not there any more.
    fn is_removed(&self, path: &Path) -> bool {
        match self.remove(path) {
            Ok(removed) => removed,
            Err(PinError::Held { .. }) => false,
            Err(error) => {
                tracing::warn!("{error}");
                false
            }
        }
    }
}

fn remove_below(parent: impl AsFd, name: &Path, path: &Path) -> Result<(), PinError> {
    let failed = |errno| PinError::io("remove", path, errno);
    let dir = openat(&parent, name, DIRECTORY, Mode::empty()).map_err(failed)?;
    for name in names(&dir, path)? {
        match unlinkat(&dir, name.as_c_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => remove_links(&dir, &name, path)?,
            Err(errno) => return Err(failed(errno)),
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(failed)
}

/// The directory of links, which has no directory in it.
fn remove_links(dir: impl AsFd, name: &CStr, path: &Path) -> Result<(), PinError> {
    let failed = |errno| PinError::io("remove", path, errno);
    let links = openat(&dir, name, DIRECTORY, Mode::empty()).map_err(failed)?;
    for link in names(&links, path)? {
        match unlinkat(&links, link.as_c_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(failed)
}

fn names(dir: impl AsFd, path: &Path) -> Result<Vec<CString>, PinError> {
    let failed = |errno| PinError::io("list", path, errno);
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_owned();
        if ![c".", c".."].contains(&name.as_c_str()) {
            names.push(name);
        }
    }
    Ok(names)
}

/// The version in the name `v<ABI>-<namespace>[-by-<daemon's>-<index>]`.
fn abi_of(dir: &Path) -> Option<u32> {
    let name = dir.file_name()?.to_str()?.strip_prefix('v')?;
    name.split('-').next()?.parse().ok()
}

fn all_dirs(root: &Path) -> Result<Vec<PathBuf>, PinError> {
    let Some(Root(dir)) = open_root(root)? else { return Ok(Vec::new()) };
    let names = names(&dir, root)?;
    let paths = names.iter().map(|name| root.join(OsStr::from_bytes(name.to_bytes())));
    Ok(paths.filter(|path| abi_of(path).is_some()).collect())
}
