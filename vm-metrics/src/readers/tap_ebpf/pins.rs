//! Where the maps and attachments stay while no daemon runs: files in a bpffs, in a directory per ABI version and load of
//! the programs, which is of one network namespace.
//!
//! One daemon at a time: a lock on the directory, which the kernel drops with the process however it ends.

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open, statfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::geteuid;
use thiserror::Error;
use vm_metrics_common::ABI_VERSION;

use super::attach::Direction;

/// `BPF_FS_MAGIC`
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The pins of one load of the programs, held by this process.
///
/// Interface indexes mean nothing in another namespace, so each has maps and links of its own.
#[derive(Debug)]
pub(super) struct Pins {
    dir: PathBuf,
    _lock: OwnedFd,
}

#[derive(Debug, Error)]
pub enum PinError {
    #[error("{} is not in a bpffs (mount one, or set readers.tap_ebpf.mount_bpffs)", dir.display())]
    NotBpffs { dir: PathBuf },
    #[error("another vm-metrics daemon holds {}: only one may count with the same pins", dir.display())]
    Held { dir: PathBuf },
    #[error("{} belongs to another user: remove it, or choose another readers.tap_ebpf.pin_dir", dir.display())]
    NotOurs { dir: PathBuf },
    #[error("{} is not empty: a bpffs mounted there would hide what is in it", dir.display())]
    NotEmpty { dir: PathBuf },
    #[error("cannot {operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
}

impl PinError {
    fn io(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { operation, path: path.to_owned(), source: source.into() }
    }
}

impl Pins {
    /// Makes the directory where it is missing, and takes it.
    pub(super) fn open(root: &Path, load: LoadId, mount_bpffs: bool) -> Result<Self, PinError> {
        let parent = root.parent().unwrap_or(root);
        if !is_bpffs(parent) && !is_bpffs(root) {
            if !mount_bpffs {
                return Err(PinError::NotBpffs { dir: root.to_owned() });
            }
            mount_private(parent)?;
        }
        let dir = load.dir(root);
        let links = dir.join(LINKS);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&links);
        made.map_err(|error| PinError::io("create", &links, error))?;
        for dir in [root, &dir, &links] {
            let owner = fs::metadata(dir).map_err(|error| PinError::io("look at", dir, error))?.uid();
            if owner != geteuid().as_raw() {
                return Err(PinError::NotOurs { dir: dir.to_owned() });
            }
        }
        let lock = lock(&dir)?;
        Ok(Self { dir, _lock: lock })
    }

    /// Removes all of it: what it held is no longer attached.
    pub(super) fn remove(self) -> Result<(), PinError> {
        remove_dir(&self.dir)
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the link on an interface is pinned. (A bpffs refuses names with a dot.)
    pub(super) fn link(&self, ifindex: u32, direction: Direction) -> PathBuf {
        self.dir.join(LINKS).join(format!("{}-{ifindex}", direction.as_str()))
    }

    /// Removes the pins of links on all other interfaces; their devices are gone, or are detached by this.
    pub(super) fn collect_links(&self, keep: impl Fn(u32) -> bool) -> Result<(), PinError> {
        for path in entries(&self.dir.join(LINKS))? {
            let name = path.file_name().and_then(|name| name.to_str());
            let ifindex = name.and_then(|name| name.rsplit_once('-')?.1.parse().ok());
            if !ifindex.is_some_and(&keep) {
                remove_file(&path)?;
            }
        }
        Ok(())
    }
}

const LINKS: &str = "links";

/// Names a load of the programs.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoadId {
    /// The cookie of the network namespace, which no other has while the machine runs; its inode before Linux 5.14.
    pub(super) netns: u64,
    /// The namespace of the daemon that counts there; `None` in its own.
    pub(super) of: Option<u64>,
    /// A namespace with many TAPs has several.
    pub(super) index: usize,
}

impl LoadId {
    fn dir(self, root: &Path) -> PathBuf {
        let Self { netns, of, index } = self;
        root.join(match of {
            None => format!("v{ABI_VERSION}-{netns}"),
            Some(daemon) => format!("v{ABI_VERSION}-{netns}{}{index}", by(daemon)),
        })
    }

    /// Removes what a load that failed has left.
    pub(super) fn discard(self, root: &Path) -> Result<(), PinError> {
        let dir = self.dir(root);
        if dir.is_dir() { remove_dir(&dir) } else { Ok(()) }
    }

    /// Whether a daemon before this one has left it.
    pub(super) fn is_pinned(self, root: &Path) -> bool {
        self.dir(root).is_dir()
    }
}

/// Says which pins are there that are not for this version to touch.
pub(super) fn report_other_versions(root: &Path) {
    for other in all_dirs(root).iter().filter(|dir| abi_of(dir) != Some(ABI_VERSION)) {
        tracing::warn!(
            "{} is of another version: left alone (`vm-metrics detach --all` removes it)",
            other.display()
        );
    }
}

/// In the name of the pins that a daemon has for another namespace: where it is itself.
fn by(daemon: u64) -> String {
    format!("-by-{daemon}-")
}

/// Removes the pins that a daemon of this namespace has left for others, and that nobody holds.
pub(super) fn remove_unheld(root: &Path, daemon: u64) -> Vec<PathBuf> {
    let is_ours =
        |dir: &PathBuf| abi_of(dir) == Some(ABI_VERSION) && dir.to_string_lossy().contains(&by(daemon));
    all_dirs(root).into_iter().filter(is_ours).filter(|dir| is_removed(dir)).collect()
}

/// Whether it was there, held by nobody, and is not there any more.
fn is_removed(dir: &Path) -> bool {
    match lock(dir).and_then(|_lock| remove_dir(dir)) {
        Ok(()) => true,
        Err(PinError::Held { .. }) => false,
        Err(error) => {
            tracing::warn!("{error}");
            false
        }
    }
}

/// Removes the pins of this version that a daemon of this namespace has left, or all that nobody holds; its own may not be
/// held by one that runs.
pub(super) fn remove_all(root: &Path, own: LoadId, all: bool) -> Result<Vec<PathBuf>, PinError> {
    let mut removed = Vec::new();
    let dir = own.dir(root);
    if dir.is_dir() {
        let _lock = lock(&dir)?;
        remove_dir(&dir)?;
        removed.push(dir);
    }
    removed.extend(remove_unheld(root, own.netns));
    if all {
        removed.extend(all_dirs(root).into_iter().filter(|dir| is_removed(dir)));
    }
    // Fails while there are versions of others in it.
    let _ = fs::remove_dir(root);
    Ok(removed)
}

fn remove_dir(dir: &Path) -> Result<(), PinError> {
    for path in entries(dir)? {
        if path.is_dir() {
            for link in entries(&path)? {
                remove_file(&link)?;
            }
            fs::remove_dir(&path).map_err(|error| PinError::io("remove", &path, error))?;
        } else {
            remove_file(&path)?;
        }
    }
    fs::remove_dir(dir).map_err(|error| PinError::io("remove", dir, error))
}

fn lock(dir: &Path) -> Result<OwnedFd, PinError> {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = open(dir, directory, Mode::empty()).map_err(|errno| PinError::io("open", dir, errno))?;
    match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(fd),
        Err(Errno::WOULDBLOCK) => Err(PinError::Held { dir: dir.to_owned() }),
        Err(errno) => Err(PinError::io("lock", dir, errno)),
    }
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.f_type == BPF_FS_MAGIC)
}

/// Only onto an empty directory, and closed to other users.
fn mount_private(dir: &Path) -> Result<(), PinError> {
    if !entries(dir)?.is_empty() {
        return Err(PinError::NotEmpty { dir: dir.to_owned() });
    }
    mount("bpf", dir, "bpf", MountFlags::empty(), Some(c"mode=0700"))
        .map_err(|errno| PinError::io("mount a bpffs on", dir, errno))
}

/// The version in the name `v<ABI>-<namespace>[-by-<daemon's>-<index>]`.
fn abi_of(dir: &Path) -> Option<u32> {
    let name = dir.file_name()?.to_str()?.strip_prefix('v')?;
    name.split('-').next()?.parse().ok()
}

/// The namespace in that name.
pub(super) fn netns_of(dir: &Path) -> Option<u64> {
    dir.file_name()?.to_str()?.split('-').nth(1)?.parse().ok()
}

/// The namespaces that pins are for.
pub(super) fn namespaces(root: &Path) -> HashSet<u64> {
    all_dirs(root).iter().filter_map(|dir| netns_of(dir)).collect()
}

fn all_dirs(root: &Path) -> Vec<PathBuf> {
    let all = entries(root).unwrap_or_default();
    all.into_iter().filter(|path| abi_of(path).is_some()).collect()
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, PinError> {
    let read = |error| PinError::io("list", dir, error);
    fs::read_dir(dir).map_err(read)?.map(|entry| Ok(entry.map_err(read)?.path())).collect()
}

/// Somebody else may have been faster.
pub(super) fn remove_file(path: &Path) -> Result<(), PinError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PinError::io("remove", path, error)),
        _ => Ok(()),
    }
}
