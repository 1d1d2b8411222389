//! The commands of bpf(2) that the testkit needs, without a library.

use std::ffi::{c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const MAP_CREATE: c_int = 0;
const MAP_UPDATE_ELEM: c_int = 2;
const PROG_LOAD: c_int = 5;
const PROG_TEST_RUN: c_int = 10;
const PROG_GET_FD_BY_ID: c_int = 13;
const OBJ_GET_INFO_BY_FD: c_int = 15;
const LINK_GET_FD_BY_ID: c_int = 30;
const LINK_DETACH: c_int = 34;

const PROG_TYPE_SCHED_CLS: u32 = 3;
const LICENSE: &[u8] = b"GPL\0";

/// Size of `struct bpf_prog_info` up to its name, and of the name.
const INFO_BEFORE_NAME: usize = 64;
const NAME: usize = 16;

#[derive(Clone, Copy, Debug)]
pub(crate) enum MapKind {
    PerCpuHash = 5,
}

/// The part of `union bpf_attr` that these commands read or write, in words of 32 bits. The rest counts as zeroes.
#[derive(Default)]
#[repr(C, align(8))]
struct Attr([u32; 24]);

impl Attr {
    fn new(words: &[(usize, u32)]) -> Self {
        let mut attr = Self::default();
        for (at, word) in words {
            attr.0[*at] = *word;
        }
        attr
    }

    /// Puts the address of a slice that outlives the call at this word.
    fn point(mut self, at: usize, to: *const u8) -> Self {
        let address = (to as u64).to_ne_bytes();
        for (half, bytes) in address.chunks_exact(4).enumerate() {
            self.0[at + half] = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        self
    }
}

pub(crate) fn create_map(kind: MapKind, key: u32, value: u32, entries: u32) -> io::Result<OwnedFd> {
    let mut attr = Attr::new(&[(0, kind as u32), (1, key), (2, value), (3, entries)]);
    // SAFETY: the command reads no memory but the attributes.
    descriptor(unsafe { command(MAP_CREATE, &mut attr) })
}

/// The slices have the sizes of the map's keys and values; a per-CPU map has one value for each possible CPU.
pub(crate) fn update(map: &OwnedFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    let attr = Attr::new(&[(0, raw(map))]);
    let mut attr = attr.point(2, key.as_ptr()).point(4, value.as_ptr());
    // SAFETY: the caller passes slices of the sizes that the kernel reads, and they outlive the call.
    check(unsafe { command(MAP_UPDATE_ELEM, &mut attr) }).map(drop)
}

pub(crate) fn load_classifier(instructions: &[u64]) -> io::Result<OwnedFd> {
    let count = u32::try_from(instructions.len()).map_err(io::Error::other)?;
    let attr = Attr::new(&[(0, PROG_TYPE_SCHED_CLS), (1, count)]);
    let mut attr = attr.point(2, instructions.as_ptr().cast()).point(4, LICENSE.as_ptr());
    // SAFETY: the kernel reads `count` instructions and a text with its zero, which both outlive the call.
    descriptor(unsafe { command(PROG_LOAD, &mut attr) })
}

/// Runs a classifier so often on a frame with this `struct __sk_buff`.
pub(crate) fn test_run(program: &OwnedFd, frame: &[u8], context: &[u8], repeat: u32) -> io::Result<()> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(io::Error::other);
    let words = [(0, raw(program)), (2, length(frame)?), (8, repeat), (10, length(context)?)];
    let mut attr = Attr::new(&words).point(4, frame.as_ptr()).point(12, context.as_ptr());
    // SAFETY: the kernel reads both slices by their lengths, and has no output buffer to write to.
    check(unsafe { command(PROG_TEST_RUN, &mut attr) }).map(drop)
}

pub(crate) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = Attr::new(&[(0, id)]);
    // SAFETY: the command reads no memory but the attributes.
    descriptor(unsafe { command(PROG_GET_FD_BY_ID, &mut attr) })
}

pub(crate) fn program_name(program: &OwnedFd) -> io::Result<String> {
    let mut info = [0_u8; INFO_BEFORE_NAME + NAME];
    let attr = Attr::new(&[(0, raw(program)), (1, (INFO_BEFORE_NAME + NAME) as u32)]);
    let mut attr = attr.point(2, info.as_mut_ptr());
    // SAFETY: the kernel writes at most the announced size, which is that of the local array. Its pointers are null.
    check(unsafe { command(OBJ_GET_INFO_BY_FD, &mut attr) })?;
    let name = info[INFO_BEFORE_NAME..].split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Detaches a BPF link of any holder, like `bpftool link detach`.
pub fn detach_bpf_link(id: u32) -> io::Result<()> {
    let link = hold_bpf_link(id)?;
    let mut attr = Attr::new(&[(0, raw(&link))]);
    // SAFETY: the command reads no memory but the attributes.
    check(unsafe { command(LINK_DETACH, &mut attr) }).map(drop)
}

/// Opens a BPF link of any holder, like a process that lists all links.
pub fn hold_bpf_link(id: u32) -> io::Result<OwnedFd> {
    let mut attr = Attr::new(&[(0, id)]);
    // SAFETY: the command reads no memory but the attributes.
    descriptor(unsafe { command(LINK_GET_FD_BY_ID, &mut attr) })
}

/// # Safety
/// The memory that the attributes point to is as the command needs it.
unsafe fn command(command: c_int, attr: &mut Attr) -> c_long {
    // SAFETY: the kernel reads and writes `size_of::<Attr>()` bytes of `attr`; for the rest the caller answers.
    unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<Attr>()) }
}

fn raw(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn descriptor(result: c_long) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: c_long) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        c_int::try_from(result).map_err(io::Error::other)
    }
}
