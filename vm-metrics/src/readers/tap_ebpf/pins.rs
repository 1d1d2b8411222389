//! Where the maps and attachments stay while no daemon runs: files in a bpffs, in a directory per ABI version and network
//! namespace.
//!
//! One daemon at a time: a lock on the directory, which the kernel drops with the process however it ends.

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

/// The pins of this ABI version and network namespace, held by this process.
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
    pub(super) fn open(root: &Path, netns: u64, mount_bpffs: bool) -> Result<Self, PinError> {
        let parent = root.parent().unwrap_or(root);
        if !is_bpffs(parent) && !is_bpffs(root) {
            if !mount_bpffs {
                return Err(PinError::NotBpffs { dir: root.to_owned() });
            }
            mount_private(parent)?;
        }
        let dir = own_dir(root, netns);
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
        for other in all_dirs(root).iter().filter(|dir| abi_of(dir) != Some(ABI_VERSION)) {
            tracing::warn!(
                "{} is of another version: left alone (`vm-metrics detach --all` removes it)",
                other.display()
            );
        }
        Ok(Self { dir, _lock: lock })
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

/// Removes the pins of this version in this namespace, or all there are; a daemon that runs keeps its own.
pub(super) fn remove_all(root: &Path, netns: u64, all: bool) -> Result<Vec<PathBuf>, PinError> {
    let own = own_dir(root, netns);
    let mut versions = all_dirs(root);
    versions.retain(|dir| all || *dir == own);
    for dir in &versions {
        let _lock = lock(dir)?;
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
        fs::remove_dir(dir).map_err(|error| PinError::io("remove", dir, error))?;
    }
    // Fails while there are versions of others in it.
    let _ = fs::remove_dir(root);
    Ok(versions)
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

fn own_dir(root: &Path, netns: u64) -> PathBuf {
    root.join(format!("v{ABI_VERSION}-{netns}"))
}

/// The version in the name `v<ABI>-<namespace>`.
fn abi_of(dir: &Path) -> Option<u32> {
    let name = dir.file_name()?.to_str()?.strip_prefix('v')?;
    name.split('-').next()?.parse().ok()
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
