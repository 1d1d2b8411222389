//! Reads the cookie of a network namespace.
//!
//! No other namespace gets the same cookie until the next boot. An inode is given to the next namespace.

use std::os::fd::{AsFd, AsRawFd};

/// Of the namespace of a socket; `None` before Linux 5.14.
pub(crate) fn cookie_of(socket: impl AsFd) -> Option<u64> {
    let mut cookie = 0_u64;
    let mut len = libc::socklen_t::try_from(size_of::<u64>()).ok()?;
    // SAFETY: the kernel writes no more than `len` bytes, which is the size of what `cookie` points to, and both live on.
    let failed = unsafe {
        let socket = socket.as_fd().as_raw_fd();
        let (cookie, len) = ((&raw mut cookie).cast(), &raw mut len);
        libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, cookie, len)
    };
    (failed == 0).then_some(cookie)
}
