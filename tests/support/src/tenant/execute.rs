//! Executes a tenant's actions in its own process.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::TcpStream;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Child, Command};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::mount::{MountFlags, mount};
use rustix::pipe::pipe;
use rustix::process::{Pid, WaitOptions, getgid, getuid, waitpid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::background::{self, Background};
use super::block::BlockTarget;
use super::{Action, FRAME, clients, fuse, server};
use crate::frames::{ETHERNET_HEADER, Frame};
use crate::tap::{Tap, TapOptions};

/// The state between two actions.
#[derive(Debug, Default)]
pub(super) struct State {
    children: Vec<Child>,
    background: Vec<Background>,
    connections: Vec<TcpStream>,
    block_target: Option<BlockTarget>,
}

impl State {
    pub(super) fn perform(&mut self, action: Action) -> Result<u64> {
        match action {
            Action::Unshare { net, mount, pid } => unshare(net, mount, pid)?,
            Action::OpenTap { name, multi_queue, up } => return open_tap(&name, multi_queue, up),
            Action::OpenFile { path } => {
                return number(open_file(&path)?.into_raw_fd());
            }
            Action::OpenPath { path } => return open_path(&path),
            Action::OpenMany { path, count } => open_many(&path, count)?,
            Action::Duplicate { from, to } => background::duplicate(from, to)?,
            // SAFETY: the test names a descriptor that belongs to no Rust value.
            Action::Close { fd } => drop(unsafe { OwnedFd::from_raw_fd(fd) }),
            Action::Send { fd, frames } => send(fd, frames)?,
            Action::Take { fd } => return take(fd),
            Action::RewriteArgv { argv } => rewrite_argv(&argv)?,
            Action::Exec { program, argv, keep } => return exec(&program, &argv, &keep),
            Action::Fork { parent_stays } => return fork(parent_stays),
            Action::StartThreads { name, count } => start_threads(&name, count)?,
            Action::MountTmpfs { path } => {
                mount("tmpfs", &path, "tmpfs", MountFlags::empty(), None).context("mount a tmpfs")?;
            }
            Action::MountFuse { path, file, hangs } => fuse::mount_one_file(&path, &file, hangs)?,
            Action::StartBlockTarget { file } => {
                return Ok(self.block_target.insert(BlockTarget::start(&file)?).pid.into());
            }
            Action::Block => self.block_target.as_mut().context("no block target")?.block()?,
            Action::ServeHttp { socket, answers } => server::serve_http(&socket, answers)?,
            Action::ServeQmp { socket, answers } => server::serve_qmp(&socket, answers)?,
            Action::Spawn { program, argv, count } => {
                for number in 0..count {
                    self.children.push(background::spawn(&program, &argv, number)?);
                }
            }
            Action::OpenForeignTap { name } => return open_foreign_tap(&name),
            Action::OpenForeignTaps { name, count } => open_foreign_taps(&name, count)?,
            Action::KeepSpawning { program, argv, pause } => {
                self.background.push(background::keep_spawning(program, argv, pause));
            }
            Action::KeepSwapping { one, other, to } => {
                self.background.push(background::keep_swapping(one, other, to));
            }
            Action::KeepOpening => self.background.push(background::keep_opening()),
            Action::KeepFlapping { count } => self.background.push(background::keep_flapping(count)?),
            Action::Get { address, path } => return clients::get(address, &path),
            Action::Connect { address, text, count } => {
                for _ in 0..count {
                    self.connections.push(clients::connect(address, &text)?);
                }
            }
            Action::KeepConnecting { address, text } => {
                self.background.push(background::keep_connecting(address, text));
            }
            Action::KeepRemakingTap { name } => self.background.push(background::keep_remaking_a_tap(name)),
            Action::KeepRequesting { address } => self.background.push(background::keep_requesting(address)),
            Action::Rest { pause } => self.background.iter().for_each(|background| background.rest(pause)),
            Action::Stop => return self.stop(),
        }
        Ok(0)
    }

    fn stop(&mut self) -> Result<u64> {
        let mut rounds = 0;
        self.connections.clear();
        for background in self.background.drain(..) {
            rounds += background.stop()?;
        }
        for child in &mut self.children {
            child.kill().context("kill a program")?;
        }
        for mut child in self.children.drain(..) {
            child.wait().context("wait for a program")?;
        }
        Ok(rounds)
    }
}

/// Becomes root in a new user namespace, as any user may.
fn unshare(net: bool, mount: bool, pid: bool) -> Result<()> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let mut flags = UnshareFlags::NEWUSER;
    flags.set(UnshareFlags::NEWNET, net);
    flags.set(UnshareFlags::NEWNS, mount);
    flags.set(UnshareFlags::NEWPID, pid);
    // SAFETY: the descriptors stay shared with all threads, of which there is one: others are refused.
    unsafe { unshare_unsafe(flags) }.context("unshare")?;
    fs::write("/proc/self/setgroups", "deny").context("deny setgroups")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("write the uid map")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("write the gid map")
}

fn open_tap(name: &str, multi_queue: bool, up: bool) -> Result<u64> {
    let tap = Tap::create(name, TapOptions { multi_queue, ..TapOptions::default() })?;
    if up {
        // Fails where the kernel reserves this for the host's root; IPv6 then stays on.
        let _ = tap.link().disable_ipv6();
        tap.link().up()?;
    }
    number(fcntl_dupfd_cloexec(&tap, 3).context("duplicate a descriptor")?.into_raw_fd())
}

fn open_file(path: &Path) -> Result<File> {
    let read = OpenOptions::new().read(true).open(path);
    read.or_else(|_| OpenOptions::new().write(true).create(true).truncate(false).open(path))
        .with_context(|| format!("open {}", path.display()))
}

fn open_path(path: &Path) -> Result<u64> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let fd = open(path, flags, Mode::empty()).with_context(|| format!("open {}", path.display()))?;
    number(fd.into_raw_fd())
}

fn open_many(path: &Path, count: usize) -> Result<()> {
    let file = open_file(path)?;
    for done in 0..count {
        let one = fcntl_dupfd_cloexec(&file, 3).with_context(|| format!("open the {done}th descriptor"))?;
        let _ = one.into_raw_fd();
    }
    Ok(())
}

/// Opens it in a child that shares the descriptors with this process, but not the namespaces.
fn open_foreign_tap(name: &str) -> Result<u64> {
    let (answer, wording) = pipe().context("make a pipe")?;
    let flags = libc::c_long::from(libc::CLONE_FILES | libc::SIGCHLD);
    // SAFETY: as fork: the child goes on with the one thread that there is, and ends below.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match child {
        -1 => return Err(io::Error::last_os_error()).context("clone"),
        0 => {
            let opened = unshare(true, false, false).and_then(|()| open_tap(name, false, true));
            let message = match opened {
                Ok(fd) => fd.to_string(),
                Err(error) => format!("{error:#}"),
            };
            let _ = rustix::io::write(&wording, message.as_bytes());
            // SAFETY: ends the process at once; the parent owns the open descriptors.
            unsafe { libc::_exit(0) }
        }
        _ => {}
    }
    let mut text = [0; 1024];
    let length = rustix::io::read(&answer, &mut text).context("read from the child")?;
    let pid = Pid::from_raw(i32::try_from(child).context("a pid")?);
    waitpid(pid, WaitOptions::empty()).context("wait for the child")?;
    let text = String::from_utf8_lossy(&text[..length]);
    text.parse().map_err(|_| anyhow!("{text}"))
}

fn open_foreign_taps(name: &str, count: usize) -> Result<()> {
    for _ in 0..count {
        // SAFETY: the descriptors stay shared with all threads.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("unshare the network namespace")?;
        open_tap(name, false, false)?;
    }
    Ok(())
}

fn send(fd: RawFd, frames: u64) -> Result<()> {
    let frame = Frame::from_guest().udp4(FRAME as usize - ETHERNET_HEADER - 20 - 8);
    for _ in 0..frames {
        let written = rustix::io::write(borrow(fd), &frame).context("write a frame")?;
        ensure!(written == frame.len(), "only {written} bytes of a frame were written");
    }
    Ok(())
}

fn take(fd: RawFd) -> Result<u64> {
    let mut buffer = [0; 2048];
    let mut bytes = 0;
    loop {
        match rustix::io::read(borrow(fd), &mut buffer) {
            Ok(length) => bytes += length as u64,
            Err(Errno::AGAIN) => return Ok(bytes),
            Err(error) => return Err(error).context("read a frame"),
        }
    }
}

/// Overwrites the memory behind `cmdline` in `/proc`, like setproctitle.
fn rewrite_argv(argv: &[String]) -> Result<()> {
    let stat = fs::read_to_string("/proc/self/stat").context("read the own stat")?;
    let (_, fields) = stat.rsplit_once(") ").context("stat without a name")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    // arg_start and arg_end are fields 48 and 49; two fields precede the end of the name.
    let [start, end] = [45, 46].map(|at: usize| fields.get(at).and_then(|field| field.parse::<usize>().ok()));
    let (start, end) = (start.context("no arg_start")?, end.context("no arg_end")?);
    let mut bytes = Vec::new();
    for argument in argv {
        bytes.extend_from_slice(argument.as_bytes());
        bytes.push(0);
    }
    ensure!(bytes.len() <= end - start, "{} bytes are more than the {} there", bytes.len(), end - start);
    bytes.resize(end - start, 0);
    // SAFETY: the kernel put the arguments there, writable; nothing in this process refers to them any more.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start as *mut u8, bytes.len()) };
    Ok(())
}

fn exec(program: &Path, argv: &[String], keep: &[RawFd]) -> Result<u64> {
    for fd in keep {
        fcntl_setfd(borrow(*fd), FdFlags::empty()).context("keep a descriptor open")?;
    }
    Err(Command::new(program).args(argv).exec()).with_context(|| format!("execute {}", program.display()))
}

fn fork(parent_stays: bool) -> Result<u64> {
    // SAFETY: the child goes on with the one thread that there is.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()).context("fork"),
        0 => number(process::id().cast_signed()),
        _ if parent_stays => loop {
            thread::park();
        },
        // SAFETY: ends the process at once, and with it no value of the child's.
        _ => unsafe { libc::_exit(0) },
    }
}

fn start_threads(name: &str, count: usize) -> Result<()> {
    // thread::Builder cuts nothing: the kernel keeps 15 bytes.
    CString::new(name).context("a name with a zero")?;
    for done in 0..count {
        let builder = thread::Builder::new().name(name.to_owned()).stack_size(16 << 10);
        builder
            .spawn(|| {
                loop {
                    thread::park()
                }
            })
            .with_context(|| format!("start the {done}th thread"))?;
    }
    Ok(())
}

fn number(number: i32) -> Result<u64> {
    u64::try_from(number).context("a negative number")
}

/// Borrows a descriptor that the test names by its number.
fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: at worst it is closed or another one: then the system call fails, or the test gets its own mistake.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
