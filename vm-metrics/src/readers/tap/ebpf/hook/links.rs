//! Asks the kernel which TCX links are on a device, and detaches one.
//!
//! BPF_PROG_QUERY needs `CAP_NET_ADMIN`. BPF_LINK_DETACH needs the descriptor alone.

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::super::direction::Direction;

/// `BPF_PROG_QUERY`
const PROG_QUERY: c_long = 16;

/// `BPF_LINK_DETACH`
const LINK_DETACH: c_long = 34;

/// `BPF_MPROG_MAX`: as many programs are on a device at most, in each direction.
const MAX: usize = 64;

/// The part of `union bpf_attr` that the command reads and writes.
#[repr(C)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The numbers of the links on a device of this thread's namespace. To get at their programs would need `CAP_SYS_ADMIN`.
pub(crate) fn on_device(ifindex: u32, direction: Direction) -> io::Result<Vec<u32>> {
    let (mut programs, mut links) = ([0_u32; MAX], [0_u32; MAX]);
    let mut query = Query {
        ifindex,
        attach_type: attach_type(direction),
        query_flags: 0,
        attach_flags: 0,
        prog_ids: programs.as_mut_ptr() as u64,
        count: MAX as u32,
        padding: 0,
        prog_attach_flags: 0,
        link_ids: links.as_mut_ptr() as u64,
        link_attach_flags: 0,
        revision: 0,
    };
    // SAFETY: the kernel writes into `query` no more than its size. Into each of the two arrays it writes no more than
    // `count` numbers. Both have room for that many, and outlive the call.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut query, size_of::<Query>()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // A program that is attached without a link has the number 0.
    Ok(links.into_iter().take(query.count as usize).filter(|link| *link != 0).collect())
}

/// Detaches a link at once, even if another process has a descriptor of it.
pub(crate) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let attr = link.as_raw_fd();
    // SAFETY: the kernel reads one descriptor from `attr`, and writes nothing. The borrow keeps the descriptor open.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, LINK_DETACH, &raw const attr, size_of_val(&attr)) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS`
fn attach_type(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => 46,
        Direction::Egress => 47,
    }
}
