//! Where the maps and attachments stay while no daemon runs: files in a bpffs, in a directory per ABI version.
//!
//! One daemon at a time: a lock on the directory, which the kernel drops with the process however it ends.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open, statfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use thiserror::Error;
use vm_metrics_common::ABI_VERSION;

use super::attach::Direction;

/// `BPF_FS_MAGIC`
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The pins of this ABI version, held by this process.
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
    #[error("cannot {operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
}

impl PinError {
    fn io(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { operation, path: path.to_owned(), source: source.into() }
    }
}

impl Pins {
    /// Makes the directory `<root>/v<ABI>` where it is missing, and takes it.
    pub(super) fn open(root: &Path, mount_bpffs: bool) -> Result<Self, PinError> {
        let parent = root.parent().unwrap_or(root);
        if !is_bpffs(parent) && !is_bpffs(root) {
            if !mount_bpffs {
                return Err(PinError::NotBpffs { dir: root.to_owned() });
            }
            mount("bpf", parent, "bpf", MountFlags::empty(), None)
                .map_err(|errno| PinError::io("mount a bpffs on", parent, errno))?;
        }
        let dir = root.join(format!("v{ABI_VERSION}"));
        let links = dir.join(LINKS);
        fs::create_dir_all(&links).map_err(|error| PinError::io("create", &links, error))?;
        let lock = lock(&dir)?;
        for other in other_versions(root, &dir) {
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

/// Removes the pins of this version, or of all versions; a daemon that runs keeps its own.
pub(super) fn remove_all(root: &Path, every_version: bool) -> Result<Vec<PathBuf>, PinError> {
    let own = root.join(format!("v{ABI_VERSION}"));
    let mut versions = if every_version { other_versions(root, &own) } else { Vec::new() };
    if own.exists() {
        versions.push(own);
    }
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

fn other_versions(root: &Path, own: &Path) -> Vec<PathBuf> {
    let is_version = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix('v').is_some_and(|version| version.parse::<u32>().is_ok())
    };
    let all = entries(root).unwrap_or_default();
    all.into_iter().filter(|path| path != own && is_version(path)).collect()
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, PinError> {
    let read = |error| PinError::io("list", dir, error);
    fs::read_dir(dir).map_err(read)?.map(|entry| Ok(entry.map_err(read)?.path())).collect()
}

fn remove_file(path: &Path) -> Result<(), PinError> {
    fs::remove_file(path).map_err(|error| PinError::io("remove", path, error))
}
