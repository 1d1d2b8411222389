//! A process whose procfs files block.
//!
//! It executes a program while another thread locks its memory for ever.

use std::ffi::{c_int, c_long, c_void};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::pipe::pipe;
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::wait::{SOON, wait_until};

const PAGE: usize = 4096;

/// Interval between two checks of a thread's state.
const A_MOMENT: Duration = Duration::from_millis(20);

/// The permitted step: read the memory, map it, then execute the child's program. The child shares the memory. No step
/// allocates, because that may wait for the memory.
static STEP: AtomicU8 = AtomicU8::new(0);
const READ: u8 = 1;
const MAP: u8 = 2;
const EXECUTE: u8 = 3;

/// A process that can be blocked.
#[derive(Debug)]
pub(super) struct BlockTarget {
    go: File,
    /// The process whose threads lock the memory.
    locker: u32,
    pub(super) pid: u32,
}

impl BlockTarget {
    /// Starts the process. `file` belongs to a hanging FUSE file system. Call it before further threads start.
    pub(super) fn start(file: &Path) -> Result<Self> {
        let (hear, go) = pipe().context("pipe")?;
        let (answers, answer) = pipe().context("pipe")?;
        // SAFETY: the child goes on with the one thread that there is.
        let locker = unsafe { libc::fork() };
        match locker {
            -1 => return Err(io::Error::last_os_error()).context("fork"),
            0 => {
                drop((go, answers));
                if let Err(error) = hold(file, hear, answer) {
                    eprintln!("{error:#}");
                }
                // SAFETY: ends the process at once, and with it no value of the parent's.
                unsafe { libc::_exit(1) }
            }
            _ => {}
        }
        drop(answer);
        let mut pid = [0; 4];
        File::from(answers).read_exact(&mut pid).context("the pid of the child")?;
        Ok(Self { go: go.into(), locker: locker.cast_unsigned(), pid: u32::from_ne_bytes(pid) })
    }

    /// Blocks the files of the process from now on.
    pub(super) fn block(&mut self) -> Result<()> {
        for (step, call) in [(READ, Some(libc::SYS_pread64)), (MAP, Some(libc::SYS_mmap)), (EXECUTE, None)] {
            self.go.write_all(&[step]).context("start a step")?;
            if let Some(call) = call {
                wait_until(SOON, "a thread to stay in its system call", || self.stays_in(call))?;
            }
        }
        // Its state is in a file that never blocks.
        let path = format!("/proc/{}/status", self.pid);
        wait_until(SOON, "the process to block", || {
            let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            Ok(status.contains("\nState:\tD").then_some(()))
        })
    }

    fn stays_in(&self, call: c_long) -> Result<Option<()>> {
        if !self.is_in(call)? {
            return Ok(None);
        }
        thread::sleep(A_MOMENT);
        Ok(self.is_in(call)?.then_some(()))
    }

    /// Whether a thread of the locker is in this system call.
    fn is_in(&self, call: c_long) -> Result<bool> {
        let path = format!("/proc/{}/task", self.locker);
        for thread in fs::read_dir(&path).with_context(|| format!("list {path}"))? {
            let path = thread?.path().join("syscall");
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            if text.split(' ').next() == Some(&call.to_string()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Waits without access to the memory.
fn wait_for(step: u8) {
    while STEP.load(Ordering::Acquire) < step {
        // SAFETY: sleeps for 10 ms.
        unsafe { libc::usleep(10_000) };
    }
}

/// Returns only on an error.
fn hold(file: &Path, hear: OwnedFd, answer: OwnedFd) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("die with the parent")?;
    let file = File::open(file).with_context(|| format!("open {}", file.display()))?;
    let map = |fd: c_int, flags: c_int| {
        // SAFETY: a new mapping where the kernel likes, which no Rust value is in.
        unsafe { libc::mmap(ptr::null_mut(), PAGE, libc::PROT_READ, libc::MAP_PRIVATE | flags, fd, 0) }
    };
    let mapped = map(file.as_raw_fd(), 0);
    ensure!(mapped != libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
    let memory = File::open("/proc/self/mem").context("open the own memory")?;
    let mut stack = vec![0_u8; 64 << 10];
    // SAFETY: the end of the stack, which is never freed: this function does not return while the child lives.
    let top = unsafe { stack.as_mut_ptr().add(stack.len()) }.cast::<c_void>();
    let top = top.wrapping_sub(top as usize % 16);
    // SAFETY: the child has a stack of its own, and only sleeps until it executes another program.
    let pid = unsafe { libc::clone(child, top, libc::CLONE_VM | libc::SIGCHLD, ptr::null_mut()) };
    ensure!(pid > 0, "clone: {}", io::Error::last_os_error());
    // These threads get their stacks before the lock.
    let writer = thread::spawn(move || {
        wait_for(MAP);
        // Waits for the lock, and all later readers wait behind it.
        map(-1, libc::MAP_ANONYMOUS);
    });
    let address = mapped as u64;
    let reader = thread::spawn(move || {
        wait_for(READ);
        // Waits for the FUSE server while it holds the lock for reading.
        let _ = memory.read_at(&mut [0; 8], address);
    });
    File::from(answer).write_all(&pid.to_ne_bytes()).context("report the pid")?;
    let (mut hear, mut step) = (File::from(hear), [0]);
    while hear.read_exact(&mut step).is_ok() {
        STEP.store(step[0], Ordering::Release);
    }
    let _ = (writer.join(), reader.join());
    Ok(())
}

extern "C" fn child(_: *mut c_void) -> c_int {
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let program = c"/bin/true";
    let argv = [program.as_ptr(), ptr::null()];
    wait_for(EXECUTE);
    // SAFETY: both lists end with a null pointer. It waits for the memory of the old program for ever.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), [ptr::null()].as_ptr()) }
}
