//! In which network namespace the device of a descriptor is: two devices of the same name in two namespaces are two.

use std::ffi::c_void;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::ptr;

use rustix::fd::{AsFd, FromRawFd, OwnedFd};
use rustix::fs::fstat;
use rustix::io;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::process::Process;
use crate::host::Host;

/// The inode of the namespace of the device, when it is not that of this process.
///
/// The kernel is asked about a duplicate of the descriptor (Linux 5.8, `CAP_SYS_PTRACE`), since the device may be
/// elsewhere than its holder. Where that cannot be, the holder's namespace is taken; where that is not known either,
/// ours.
pub fn foreign_netns(process: &Process, descriptor: u32) -> Option<u64> {
    let own = process.host.own_netns()?;
    let device = asked(process, descriptor).or_else(|| netns(process.path("ns/net")))?;
    (device != own).then_some(device)
}

fn netns(path: impl AsRef<std::path::Path>) -> Option<u64> {
    fs::metadata(path).ok().map(|namespace| namespace.ino())
}

/// Only with the host's own process ids: under another root they may mean other processes.
fn asked(process: &Process, descriptor: u32) -> Option<u64> {
    if *process.host != Host::default() {
        return None;
    }
    let pid = Pid::from_raw(process.pid.cast_signed())?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let duplicate = pidfd_getfd(&process, descriptor.cast_signed(), PidfdGetfdFlags::empty()).ok()?;
    let namespace = device_netns(&duplicate).ok()?;
    fstat(&namespace).ok().map(|namespace| namespace.st_ino)
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
