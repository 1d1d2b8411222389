//! A tenant's FUSE file system with one file in one directory.
//!
//! Only the tenant's user may access it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Signal, set_parent_process_death_signal};

const HEADER: usize = 40;
const ROOT: u64 = 1;
const FILE: u64 = 2;

/// Properties of the one file.
struct OneFile {
    name: Vec<u8>,
    /// Whether a reader waits for ever.
    hangs: bool,
}

/// Mounts the file system. Needs the tenant's own user and mount namespaces, as their root. Call it before further
/// threads start.
pub(super) fn mount_one_file(path: &Path, name: &str, hangs: bool) -> Result<()> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").context("open /dev/fuse")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let options = std::ffi::CString::new(options).context("mount options")?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID;
    mount("fuse", path, "fuse", flags, Some(options.as_c_str())).context("mount a FUSE file system")?;
    let file = OneFile { name: name.as_bytes().to_vec(), hangs };
    // A separate process serves it, because a process that ends first closes its files, which needs the file system.
    // SAFETY: the child goes on with the one thread that there is.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()).context("fork"),
        0 => {
            if set_parent_process_death_signal(Some(Signal::KILL)).is_ok() {
                serve(device, &file);
            }
            // SAFETY: ends the process at once, and with it no value of the parent's.
            unsafe { libc::_exit(0) }
        }
        _ => Ok(()),
    }
}

/// Serves requests until the unmount.
fn serve(mut device: File, file: &OneFile) {
    let mut request = vec![0; 1 << 20];
    while let Ok(length) = device.read(&mut request) {
        let (header, body) = request[..length].split_at(HEADER);
        let number = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| header[at + i]));
        let opcode = u32::from_ne_bytes(std::array::from_fn(|i| header[4 + i]));
        let Some(answer) = file.answer(opcode, number(16), body) else { continue };
        let (error, answer) = answer.map_or_else(|error| (-error, Vec::new()), |answer| (0, answer));
        let mut reply = ((16 + answer.len()) as u32).to_ne_bytes().to_vec();
        reply.extend(error.to_ne_bytes());
        reply.extend(number(8).to_ne_bytes());
        reply.extend(answer);
        // The requester may have gone.
        let _ = device.write(&reply);
    }
}

impl OneFile {
    /// The kernel requests nothing of an empty file.
    fn size(&self) -> u64 {
        if self.hangs { 4096 } else { 0 }
    }

    /// Returns the reply; `None` if the request has none.
    fn answer(&self, opcode: u32, node: u64, body: &[u8]) -> Option<Result<Vec<u8>, i32>> {
        const LOOKUP: u32 = 1;
        const FORGET: u32 = 2;
        const GETATTR: u32 = 3;
        const OPEN: u32 = 14;
        const READ: u32 = 15;
        const RELEASE: u32 = 18;
        const FLUSH: u32 = 25;
        const INIT: u32 = 26;
        const BATCH_FORGET: u32 = 42;
        Some(match opcode {
            INIT => Ok(init()),
            LOOKUP if body.strip_suffix(b"\0") == Some(&self.name[..]) => Ok(entry(self.size())),
            LOOKUP => Err(libc::ENOENT),
            GETATTR => {
                // Never valid, so that the kernel asks each time.
                let mut answer = vec![0; 16];
                answer.extend(attributes(node, self.size()));
                Ok(answer)
            }
            OPEN => Ok(vec![0; 16]),
            READ if self.hangs => return None,
            READ | RELEASE | FLUSH => Ok(Vec::new()),
            FORGET | BATCH_FORGET => return None,
            _ => Err(libc::ENOSYS),
        })
    }
}

/// `struct fuse_init_out` of protocol 7.31.
fn init() -> Vec<u8> {
    let mut answer: Vec<u8> = [7_u32, 31, 0, 0].iter().flat_map(|number| number.to_ne_bytes()).collect();
    // Requests in the background, and the largest write.
    answer.extend([8_u16, 8].iter().flat_map(|number| number.to_ne_bytes()));
    answer.extend(4096_u32.to_ne_bytes());
    answer.resize(64, 0);
    answer
}

/// `struct fuse_entry_out`
fn entry(size: u64) -> Vec<u8> {
    let mut answer: Vec<u8> = [FILE, 0, 0, 0, 0].iter().flat_map(|number| number.to_ne_bytes()).collect();
    answer.extend(attributes(FILE, size));
    answer
}

/// `struct fuse_attr`
fn attributes(node: u64, size: u64) -> Vec<u8> {
    let mode = if node == ROOT { libc::S_IFDIR | 0o755 } else { libc::S_IFREG | 0o644 };
    let mut answer: Vec<u8> =
        [node, size, 0, 0, 0, 0].iter().flat_map(|number| number.to_ne_bytes()).collect();
    let rest = [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0];
    answer.extend(rest.iter().flat_map(|number| number.to_ne_bytes()));
    answer
}
