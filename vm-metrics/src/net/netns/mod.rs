//! Finds, opens and enters foreign network namespaces.
//!
//! A short-lived thread enters. An open namespace lives on with its devices, so it is closed when its last VM has ended.

mod cookie;
mod device;
mod macvtap;
mod tun;

#[cfg(feature = "ebpf")]
use std::collections::HashSet;
use std::fs;
use std::io;
use std::iter;
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;
#[cfg(feature = "ebpf")]
use std::time::Duration;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) use cookie::cookie_of;
pub(crate) use macvtap::Macvtaps;
pub(crate) use tun::{TUN, device_number, is_tun, tun_device};

use crate::host::Host;
#[cfg(feature = "ebpf")]
use crate::patient::{Job, Patient};

/// A network namespace, held open.
#[derive(Debug)]
pub(crate) struct Namespace {
    fd: OwnedFd,
}

/// Processes that are looked at in search of one namespace.
const MAX_PROCESSES: usize = 16;

impl Namespace {
    /// The namespace with this inode: one of the processes is in it or has a TAP there, or it has a name in `/run/netns`.
    ///
    /// # Errors
    /// When it is not found, or may not be opened.
    pub(crate) fn find(host: &Host, inode: u64, pids: &[u32]) -> io::Result<Self> {
        let mut refused = None;
        let is_it = |found: io::Result<OwnedFd>| match found {
            Ok(fd) => fstat(&fd).is_ok_and(|stat| stat.st_ino == inode).then_some(fd),
            Err(error) => {
                refused =
                    refused.take().or(Some(error).filter(|e| e.kind() == io::ErrorKind::PermissionDenied));
                None
            }
        };
        let pids = &pids[..pids.len().min(MAX_PROCESSES)];
        let of_processes = pids.iter().map(|pid| open_file(&host.process(*pid).join("ns/net")));
        // Most often the first process is in it: the others, their descriptors and the names are looked at after that.
        let of_devices = pids.iter().flat_map(|pid| device::namespaces(host, *pid)).map(Ok);
        let named = || names(host).into_iter().filter(|path| inode_of(path) == Some(inode));
        let of_names = iter::once_with(named).flatten().map(|path| open_file(&path));
        match of_processes.chain(of_devices).chain(of_names).find_map(is_it) {
            Some(fd) => Ok(Self { fd }),
            None => Err(refused.unwrap_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, "no process of a VM is in it, and it has no name")
            })),
        }
    }

    /// Those, other than this process's own, that some process is in or that have a name, as far as they may be opened.
    #[cfg(feature = "ebpf")]
    pub(crate) fn others(host: &Host) -> Vec<Self> {
        let own = host.own_netns();
        let processes = fs::read_dir(host.proc()).into_iter().flatten();
        let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let of_processes = of_processes(host, pids.collect());
        let of_names = names(host).into_iter().filter_map(|path| Some((inode_of(&path)?, path)));
        let (mut found, mut known) = (Vec::new(), own.into_iter().collect::<HashSet<u64>>());
        for (inode, path) in of_processes.into_iter().chain(of_names) {
            if known.insert(inode) {
                found.extend(open_file(&path).map(|fd| Self { fd }));
            }
        }
        found
    }

    #[cfg(feature = "ebpf")]
    pub(crate) fn inode(&self) -> u64 {
        fstat(&self.fd).map_or(0, |stat| stat.st_ino)
    }

    /// Does the work on a thread that is in this namespace and ends with it: it never has to find back.
    ///
    /// # Errors
    /// When this process may not enter (`CAP_SYS_ADMIN`), or has no thread left.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let inside = || {
                move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            };
            let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, inside)?;
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }
}

/// The inode of the network namespace of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnNetns(Option<u64>);

impl OwnNetns {
    pub(crate) fn of(host: &Host) -> Self {
        Self(host.own_netns())
    }

    /// A namespace, if it is another one for certain.
    pub(crate) fn foreign(self, netns: Option<u64>) -> Option<u64> {
        netns.filter(|netns| self.0.is_some_and(|own| own != *netns))
    }
}

/// The namespaces of processes, with the file of one process that is in it. A process that does not answer is left out.
#[cfg(feature = "ebpf")]
fn of_processes(host: &Host, pids: Vec<u32>) -> Vec<(u64, PathBuf)> {
    /// Each call goes on after those that do not answer.
    const CALLS: usize = 64;
    let file = |pid: u32| host.process(pid).join("ns/net");
    let mut patient = Patient::new("others", Duration::from_millis(100), |path: PathBuf| inode_of(path));
    let (mut found, mut left) = (Vec::new(), pids);
    for _ in 0..CALLS {
        let job = |pid: &u32| Job { pid: *pid, uid: None, is_trusted: true, question: file(*pid) };
        let answers = patient.each(left.iter().map(job).collect());
        let mut unanswered = Vec::new();
        for (pid, answer) in left.iter().zip(answers) {
            match answer {
                Some(inode) => found.extend(inode.map(|inode| (inode, file(*pid)))),
                None => unanswered.push(*pid),
            }
        }
        if unanswered.is_empty() || unanswered.len() == patient.stuck() {
            break;
        }
        left = unanswered;
    }
    found
}

fn open_file(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The inode of the namespace that a file stands for.
pub(crate) fn inode_of(path: impl AsRef<Path>) -> Option<u64> {
    fs::metadata(path).ok().map(|namespace| namespace.ino())
}

fn names(host: &Host) -> Vec<PathBuf> {
    let entries = fs::read_dir(host.named_namespaces()).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_is_found_by_its_inode() {
        let host = Host::default();
        let own = host.own_netns().expect("a namespace");
        let pids = [u32::MAX, std::process::id()];
        let found = Namespace::find(&host, own, &pids).expect("it is there");
        assert_eq!(fstat(&found.fd).expect("it is open").st_ino, own);
        let error = Namespace::find(&host, 1, &pids).expect_err("there is none");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
