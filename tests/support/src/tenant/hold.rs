//! A process whose files in procfs do not answer: it executes a program while its memory is locked for ever.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::pipe::pipe;
use rustix::process::{Signal, set_parent_process_death_signal};

const PAGE: usize = 4096;

/// What comes after the other has begun by then: no test depends on it.
const A_MOMENT: Duration = Duration::from_millis(200);

/// Whether the child is to execute its program. It shares the memory.
static GO: AtomicBool = AtomicBool::new(false);

/// A process that can be held up.
#[derive(Debug)]
pub(super) struct Holdable {
    go: File,
    pub(super) pid: u32,
}

impl Holdable {
    /// `file` is one of a FUSE file system that hangs. To be called before there are more threads.
    pub(super) fn start(file: &Path) -> Result<Self> {
        let (hear, go) = pipe().context("pipe")?;
        let (answers, answer) = pipe().context("pipe")?;
        // SAFETY: the child goes on with the one thread that there is.
        match unsafe { libc::fork() } {
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
        Ok(Self { go: go.into(), pid: u32::from_ne_bytes(pid) })
    }

    /// From soon after on, the files of the process do not answer.
    pub(super) fn hold(&mut self) -> Result<()> {
        self.go.write_all(b"g").context("tell a process")
    }
}

/// Returns only when something is wrong.
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
    // Its stack is made before the memory is locked.
    let (begin, told) = std::sync::mpsc::channel::<()>();
    let writer = thread::spawn(move || {
        let _ = told.recv();
        map(-1, libc::MAP_ANONYMOUS);
    });
    let (read, hears) = std::sync::mpsc::channel::<()>();
    let address = mapped as u64;
    let reader = thread::spawn(move || {
        let _ = hears.recv();
        // Waits for the FUSE server with the lock held for reading.
        let _ = memory.read_at(&mut [0; 8], address);
    });
    File::from(answer).write_all(&pid.to_ne_bytes()).context("say the pid")?;
    File::from(hear).read_exact(&mut [0]).context("wait for the word")?;
    let _ = read.send(());
    thread::sleep(A_MOMENT);
    // Waits for the lock, and all who want it for reading wait behind.
    let _ = begin.send(());
    thread::sleep(A_MOMENT);
    GO.store(true, Ordering::Release);
    let _ = (writer.join(), reader.join());
    Ok(())
}

extern "C" fn child(_: *mut c_void) -> c_int {
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let program = c"/bin/true";
    let argv = [program.as_ptr(), ptr::null()];
    while !GO.load(Ordering::Acquire) {
        // SAFETY: sleeps for 10 ms.
        unsafe { libc::usleep(10_000) };
    }
    // SAFETY: both lists end with a null pointer. It waits for the memory of the old program for ever.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), [ptr::null()].as_ptr()) }
}
