//! The device behind a descriptor of `/dev/net/tun`, as the kernel says.

use std::ffi::c_void;
use std::ptr;

use rustix::fd::{AsFd, FromRawFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, StatxFlags, fstat, statx};
use rustix::io;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use rustix::path::Arg;

/// A TUN or TAP device: a name, in one network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TunDevice {
    /// Any bytes that the kernel takes for a name.
    pub(crate) name: Vec<u8>,
    /// The inode of the namespace.
    pub(crate) netns: u64,
}

/// A device may be renamed or moved while the kernel is asked. Nobody does that so often without a reason.
const ATTEMPTS: usize = 8;

/// `/dev/net/tun` has this number (`TUN_MINOR` of `linux/miscdevice.h`, below the major number of `misc`).
pub(crate) const TUN: (u32, u32) = (10, 200);

/// Whether a descriptor is of the TUN driver, by the number of its device: anybody may give a file the name.
///
/// It does not ask the file system, which may be a tenant's (FUSE) and may never answer.
pub(crate) fn is_tun(descriptor: impl AsFd) -> bool {
    device_number(descriptor, "", AtFlags::EMPTY_PATH) == Some(TUN)
}

/// The number of the character device behind a path from a directory; `None` where it is something else.
pub(crate) fn device_number(from: impl AsFd, path: impl Arg, flags: AtFlags) -> Option<(u32, u32)> {
    let flags = flags | AtFlags::STATX_DONT_SYNC;
    let stat = statx(from, path, flags, StatxFlags::TYPE | StatxFlags::MODE).ok()?;
    let is_device = FileType::from_raw_mode(stat.stx_mode.into()).is_char_device();
    is_device.then_some((stat.stx_rdev_major, stat.stx_rdev_minor))
}

/// The device that a descriptor is attached to; `None` where it is attached to none.
///
/// The name and the namespace are of one moment: the namespace is the same before and after the name is read.
/// The caller makes sure that the descriptor is of the TUN driver.
///
/// # Errors
/// When the kernel does not tell (`TUNGETDEVNETNS` needs Linux 5.8 and `CAP_NET_ADMIN` in the device's namespace).
pub(crate) fn tun_device(tun: impl AsFd) -> io::Result<Option<TunDevice>> {
    for _ in 0..ATTEMPTS {
        let before = match device_netns(&tun) {
            Ok(namespace) => namespace,
            Err(io::Errno::BADFD) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let name = match device_name(&tun) {
            Ok(name) => name,
            Err(io::Errno::BADFD) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let after = device_netns(&tun)?;
        // Both are open, so that neither inode can be of another namespace meanwhile.
        let netns = fstat(&before)?.st_ino;
        if netns == fstat(&after)?.st_ino {
            return Ok(Some(TunDevice { name, netns }));
        }
    }
    Err(io::Errno::AGAIN)
}

/// `TUNGETDEVNETNS`
pub(super) fn device_netns(tun: impl AsFd) -> io::Result<OwnedFd> {
    // SAFETY: the request takes no argument and writes no memory; on a descriptor of something else it is refused.
    unsafe { ioctl(tun, GetDeviceNetns) }
}

/// `TUNGETIFF`
fn device_name(tun: impl AsFd) -> io::Result<Vec<u8>> {
    // SAFETY: the request writes one `ifreq`, which lives in the value that is given.
    unsafe { ioctl(tun, GetInterface(Request::default())) }
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

/// `struct ifreq`: a name of 16 bytes at most, and 24 bytes that differ by request.
#[derive(Default)]
#[repr(C, align(8))]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    rest: [u8; 24],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

struct GetInterface(Request);

// SAFETY: `_IOR('T', 210, unsigned int)` of <linux/if_tun.h>, which writes a whole `ifreq` in spite of its number; the
// assertion above holds its size.
unsafe impl Ioctl for GetInterface {
    type Output = Vec<u8>;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read::<libc::c_uint>(b'T', 210)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.0).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, request: *mut c_void) -> io::Result<Vec<u8>> {
        // SAFETY: this is the pointer that `as_ptr` gave, and a successful request has filled what it points to.
        let Request { name, .. } = unsafe { &*request.cast::<Request>() };
        Ok(name.iter().copied().take_while(|byte| *byte != 0).collect())
    }
}
