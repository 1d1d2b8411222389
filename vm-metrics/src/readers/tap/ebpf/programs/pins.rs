//! Pins maps and links in a bpffs, where they outlive the daemon.
//!
//! There is a directory per ABI version and load of the programs. A lock on it admits one daemon at a time. The kernel drops
//! the lock with the process.

mod error;
mod lock;
mod removal;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fd::AsFd;
use rustix::fs::{FlockOperation, flock, fstatfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use vm_metrics_common::ABI_VERSION;

pub use self::error::PinError;
pub(crate) use self::removal::{namespaces, netns_of, remove_all, remove_unheld, report_other_versions};
use crate::own_dir::{DirError, OwnDir, PRIVATE, check_way, check_writable};
use crate::readers::tap::ebpf::direction::{BOTH, Direction};

/// `BPF_FS_MAGIC`
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The pins of one load of the programs, held by this process.
///
/// Interface indexes mean nothing in another namespace, so each has maps and links of its own.
#[derive(Debug)]
pub(crate) struct Pins {
    dir: PathBuf,
    _lock: OwnDir,
}

impl Pins {
    /// Makes the directory where it is missing, and takes it.
    pub(crate) fn open(root: &Path, load: LoadId, mount_bpffs: bool) -> Result<Self, PinError> {
        if !is_in_bpffs(root)? {
            if !mount_bpffs {
                return Err(PinError::NotBpffs { dir: root.to_owned() });
            }
            mount_private(parent_of(root))?;
        }
        // One by one: directories that are made on the way to another one are not private.
        OwnDir::make(root, PRIVATE).map_err(|error| PinError::of_root(error, root))?;
        let dir = load.dir(root);
        let own = OwnDir::make(&dir, PRIVATE).map_err(|error| PinError::of_root(error, root))?;
        // From here on paths are as good as descriptors: no other user can change where they lead.
        lock(&own, &dir, "stop it first, or give this one another pin_dir, or set pin = false")?;
        let links = dir.join(LINKS);
        check_left(&dir, &own)?;
        check_left(&links, &OwnDir::make(&links, PRIVATE)?)?;
        Ok(Self { dir, _lock: own })
    }

    /// Whether a daemon of this user could pin there; changes nothing.
    pub(crate) fn check(root: &Path, load: LoadId, mount_bpffs: bool) -> Result<(), PinError> {
        if !is_in_bpffs(root)? {
            return if mount_bpffs { Ok(()) } else { Err(PinError::NotBpffs { dir: root.to_owned() }) };
        }
        let denied = |error| PinError::of_root(error, root);
        match OwnDir::open(root) {
            Ok(own) => own.check_writable().map_err(denied)?,
            Err(DirError::Absent { .. }) => {
                let parent = parent_of(root);
                return check_writable(check_way(parent)?, parent).map_err(denied);
            }
            // Root asks on a host whose daemon runs as an ordinary user.
            Err(DirError::Owner { path, owner, us: us @ 0 }) if path == root => {
                return Err(PinError::OtherUser { dir: path, owner, us });
            }
            Err(error) => return Err(denied(error)),
        }
        let dir = load.dir(root);
        match OwnDir::open(&dir) {
            Ok(own) => check_left(&dir, &own),
            Err(DirError::Absent { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes all of it: what it held is no longer attached.
    pub(crate) fn remove(self) -> Result<(), PinError> {
        removal::remove_dir(&self.dir)
    }

    /// Where a map is pinned.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the link on an interface is pinned. (A bpffs refuses names with a dot.)
    pub(crate) fn link(&self, ifindex: u32, direction: Direction) -> PathBuf {
        self.dir.join(LINKS).join(format!("{}-{ifindex}", direction.as_str()))
    }

    /// Whether a link on an interface is pinned in one direction at least.
    pub(crate) fn has_links(&self, ifindex: u32) -> Result<bool, PinError> {
        let there = BOTH.map(|direction| is_there(&self.link(ifindex, direction)));
        there.into_iter().try_fold(false, |any, there| Ok(any | there?))
    }

    /// Removes the pins of links on an interface.
    pub(crate) fn remove_links(&self, ifindex: u32) -> Result<(), PinError> {
        BOTH.iter().try_for_each(|direction| remove_file(&self.link(ifindex, *direction)))
    }

    /// Removes the pins of links on all other interfaces; their devices are gone, or are detached by this.
    pub(crate) fn collect_links(&self, keep: impl Fn(u32) -> bool) -> Result<(), PinError> {
        let links = self.dir.join(LINKS);
        for name in removal::names_in(&links)? {
            let ifindex = name.to_str().and_then(|name| name.rsplit_once('-')?.1.parse().ok());
            if !ifindex.is_some_and(&keep) {
                remove_file(&links.join(name))?;
            }
        }
        Ok(())
    }
}

const LINKS: &str = "links";

/// Names a load of the programs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadId {
    /// The cookie of the network namespace, which no other has while the machine runs; its inode before Linux 5.14.
    pub(crate) netns: u64,
    /// The namespace of the daemon that counts there; `None` in its own.
    pub(crate) of: Option<u64>,
    /// A namespace with many TAPs has several.
    pub(crate) index: usize,
}

impl LoadId {
    fn dir(self, root: &Path) -> PathBuf {
        let Self { netns, of, index } = self;
        root.join(match of {
            None => format!("v{ABI_VERSION}-{netns}"),
            Some(daemon) => format!("v{ABI_VERSION}-{netns}{}{index}", removal::by(daemon)),
        })
    }

    /// Removes what a load that failed has left.
    pub(crate) fn discard(self, root: &Path) -> Result<(), PinError> {
        let dir = self.dir(root);
        if is_there(&dir)? { removal::remove_dir(&dir) } else { Ok(()) }
    }

    /// Whether a daemon before this one has left it.
    pub(crate) fn is_pinned(self, root: &Path) -> Result<bool, PinError> {
        is_there(&self.dir(root))
    }
}

/// `advice` is for the case that a daemon has it.
fn lock(dir: impl AsFd, path: &Path, advice: &'static str) -> Result<(), PinError> {
    match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => {
            Err(PinError::Held { dir: path.to_owned(), pid: lock::holder(&dir), advice })
        }
        Err(errno) => Err(PinError::io("lock", path, errno)),
    }
}

/// What a daemon of root has left passes for ours, but another user can pin nothing there.
fn check_left(dir: &Path, own: &OwnDir) -> Result<(), PinError> {
    own.check_writable().map_err(|source| PinError::LeftByOther { dir: dir.to_owned(), source })
}

/// The way to it is checked before anything there is asked.
fn is_in_bpffs(root: &Path) -> Result<bool, PinError> {
    let parent = match check_way(parent_of(root)) {
        Ok(parent) => parent,
        Err(DirError::Absent { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if is_bpffs(&parent, parent_of(root))? {
        return Ok(true);
    }
    match check_way(root) {
        Ok(dir) => is_bpffs(&dir, root),
        Err(DirError::Absent { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_bpffs(dir: impl AsFd, path: &Path) -> Result<bool, PinError> {
    let fs = fstatfs(dir).map_err(|errno| PinError::io("ask for the file system of", path, errno))?;
    Ok(fs.f_type == BPF_FS_MAGIC)
}

fn parent_of(root: &Path) -> &Path {
    root.parent().unwrap_or(root)
}

/// Only onto an empty directory of ours, and closed to other users.
fn mount_private(dir: &Path) -> Result<(), PinError> {
    OwnDir::open(dir)?;
    if !removal::names_in(dir)?.is_empty() {
        return Err(PinError::NotEmpty { dir: dir.to_owned() });
    }
    mount("bpf", dir, "bpf", MountFlags::empty(), Some(c"mode=0700"))
        .map_err(|errno| PinError::io("mount a bpffs on", dir, errno))
}

/// Whether there is such a file; an error where that may not be known.
pub(crate) fn is_there(path: &Path) -> Result<bool, PinError> {
    path.try_exists().map_err(|error| PinError::io("look at", path, error))
}

/// Somebody else may have been faster.
pub(crate) fn remove_file(path: &Path) -> Result<(), PinError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PinError::io("remove", path, error)),
        _ => Ok(()),
    }
}
