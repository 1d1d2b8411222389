//! In which network namespace the device of a descriptor is: two devices of the same name in two namespaces are two.

use std::ffi::c_void;
use std::fs;
use std::ptr;

use rustix::fd::{AsFd, FromRawFd, OwnedFd};
use rustix::fs::fstat;
use rustix::io;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::inode_of;
use crate::host::Host;

/// The inode of the namespace of a process's TAP, when it is not that of this process.
///
/// The kernel is asked about a duplicate of the descriptor (Linux 5.8, `CAP_SYS_PTRACE`), since the device may be
/// elsewhere than its holder. Where that cannot be, the holder's namespace is taken; where that is not known either,
/// ours.
pub(crate) fn foreign_netns(host: &Host, pid: u32, descriptor: u32) -> Option<u64> {
    let own = host.own_netns()?;
    let asked = asked(host, pid, descriptor).and_then(|namespace| Some(fstat(&namespace).ok()?.st_ino));
    let device = asked.or_else(|| inode_of(host.process(pid).join("ns/net")))?;
    (device != own).then_some(device)
}

/// Descriptors of a process that are looked at in search of its TAPs.
const MAX_DESCRIPTORS: usize = 4096;

/// The namespaces of the TAPs that a process has open, each looked up when it is asked for.
pub(super) fn namespaces(host: &Host, pid: u32) -> impl Iterator<Item = OwnedFd> {
    let entries = fs::read_dir(host.process(pid).join("fd")).into_iter().flatten().take(MAX_DESCRIPTORS);
    let descriptors = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        let is_tun = fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().contains("/net/tun"));
        path.file_name().filter(|_| is_tun)?.to_str()?.parse::<u32>().ok()
    });
    descriptors.filter_map(move |descriptor| asked(host, pid, descriptor))
}

/// Only with the host's own process ids: under another root they may mean other processes.
fn asked(host: &Host, pid: u32, descriptor: u32) -> Option<OwnedFd> {
    if *host != Host::default() {
        return None;
    }
    let pid = Pid::from_raw(pid.cast_signed())?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let duplicate = pidfd_getfd(&process, descriptor.cast_signed(), PidfdGetfdFlags::empty()).ok()?;
    device_netns(&duplicate).ok()
}

/// `TUNGETDEVNETNS`
fn device_netns(tun: impl AsFd) -> io::Result<OwnedFd> {
    // SAFETY: the request takes no argument and writes no memory; on a descriptor of something else it is refused.
    unsafe { ioctl(tun, GetDeviceNetns) }
}

struct GetDeviceNetns;

// SAFETY: `_IO('T', 227)` of <linux/if_tun.h>: no argument; the result is a new file descriptor, which nobody else owns.
unsafe impl Ioctl for GetDeviceNetns {
    type Output = OwnedFd;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::none(b'T', 227)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::null_mut()
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> io::Result<OwnedFd> {
        // SAFETY: a successful request has returned a new descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(output) })
    }
}
