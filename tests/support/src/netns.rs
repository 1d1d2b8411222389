//! Network namespaces for the calling thread, each with its own `/sys`.
//!
//! `/sys/class/net` shows the namespace in which sysfs was *mounted*, so a network namespace alone would still show the
//! host's devices. The thread therefore gets a mount namespace as well. It has a fresh sysfs on `/sys` (with BTF in
//! `/sys/kernel/btf`), and a fresh, empty bpffs on `/sys/fs/bpf`.
//!
//! Threads and child processes that start afterwards inherit all of it. The host sees none of these mounts, and pins in
//! that bpffs go with it. `/sys/fs/cgroup` is absent. `/proc` is the host's, and its `/proc/net` is that of the
//! process's main thread: use `/proc/thread-self/net`.

use std::fs;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{fchdir, geteuid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::link::Link;

/// A drop returns the thread to its former namespaces. May be nested.
#[derive(Debug)]
pub struct NetNs {
    inode: u64,
    former_net: OwnedFd,
    former_mounts: OwnedFd,
    former_directory: OwnedFd,
    /// The thread moved, and no other thread could move it back.
    _not_send: PhantomData<*const ()>,
}

/// A network namespace without the calling thread. A drop ends it with its devices.
#[derive(Debug)]
pub struct ForeignNetNs {
    fd: OwnedFd,
    inode: u64,
}

/// The calling thread is in another network namespace, with its own mounts, until the drop.
#[derive(Debug)]
pub struct NetNsGuard {
    former: OwnedFd,
    _not_send: PhantomData<*const ()>,
}

/// Moves the calling thread into the network namespace of a process.
pub fn enter_of(pid: u32) -> Result<NetNsGuard> {
    NetNsGuard::to(&open_path(&format!("/proc/{pid}/ns/net"))?)
}

impl ForeignNetNs {
    /// Makes a namespace like [`NetNs::enter`].
    pub fn new() -> Result<Self> {
        let inside = NetNs::enter()?;
        Ok(Self { fd: open_path("/proc/thread-self/ns/net")?, inode: inside.inode() })
    }

    /// See [`NetNs::inode`].
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Moves the calling thread into the namespace.
    pub fn enter(&self) -> Result<NetNsGuard> {
        NetNsGuard::to(&self.fd)
    }
}

impl NetNsGuard {
    fn to(there: &OwnedFd) -> Result<Self> {
        let former = open_path("/proc/thread-self/ns/net")?;
        move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network))
            .context("setns, network")?;
        Ok(Self { former, _not_send: PhantomData })
    }
}

impl Drop for NetNsGuard {
    fn drop(&mut self) {
        let back = move_into_link_name_space(self.former.as_fd(), Some(LinkNameSpaceType::Network));
        if let Err(error) = back
            && !thread::panicking()
        {
            panic!("cannot leave the network namespace: {error}");
        }
    }
}

impl NetNs {
    /// Moves the calling thread into a new, empty network namespace with loopback up. IPv6 is off, so that counters
    /// begin at 0.
    pub fn enter() -> Result<Self> {
        ensure!(geteuid().is_root(), "this makes real network namespaces and TAPs: run it as root");
        let former = (open_path("/proc/thread-self/ns/net")?, open_path("/proc/thread-self/ns/mnt")?);
        let former_directory = open_path(".")?;
        // SAFETY: the file descriptors stay shared with the other threads; FS only unties the working directory.
        unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS | UnshareFlags::NEWNET) }
            .context("unshare the network and mount namespaces")?;
        let mut guard = Self {
            inode: 0,
            former_net: former.0,
            former_mounts: former.1,
            former_directory,
            _not_send: PhantomData,
        };
        let net = open_path("/proc/thread-self/ns/net")?;
        guard.inode = fstat(&net).context("fstat /proc/thread-self/ns/net")?.st_ino;
        mount_for_this_namespace()?;
        turn_ipv6_off()?;
        Link::named("lo").up()?;
        Ok(guard)
    }

    /// Returns the number in the brackets of `readlink /proc/<pid>/ns/net`.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    fn leave(&self) -> Result<()> {
        // A thread can only leave a mount namespace if it shares its working directory with no other. A thread that
        // started here shares it.
        // SAFETY: as in `enter`.
        unsafe { unshare_unsafe(UnshareFlags::FS) }.context("unshare the working directory")?;
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(self.former_net.as_fd(), network).context("setns, network")?;
        let mounts = Some(LinkNameSpaceType::Mount);
        move_into_link_name_space(self.former_mounts.as_fd(), mounts).context("setns, mount")?;
        // setns moved the thread to the root.
        fchdir(&self.former_directory).context("go back to the former working directory")
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        // A thread that stayed would next act on the wrong devices.
        if let Err(error) = self.leave()
            && !thread::panicking()
        {
            panic!("cannot leave the network namespace: {error:#}");
        }
    }
}

fn mount_for_this_namespace() -> Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).context("make the mounts private")?;
    mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None).context("mount sysfs on /sys")?;
    mount("bpf", "/sys/fs/bpf", "bpf", MountFlags::empty(), None).context("mount bpf on /sys/fs/bpf")
}

fn turn_ipv6_off() -> Result<()> {
    for which in ["all", "default"] {
        let path = Path::new("/proc/sys/net/ipv6/conf").join(which).join("disable_ipv6");
        if path.exists() {
            fs::write(&path, "1").with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(())
}

fn open_path(path: &str) -> Result<OwnedFd> {
    open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).with_context(|| format!("open {path}"))
}
