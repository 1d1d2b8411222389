//! A process of any user with any name, for attacks.
//!
//! The process is another instance of the test program under another name. Its command line is a hypervisor's, which a
//! test harness cannot parse. So [`run_if_asked`] has to run before `main`.

mod action;
mod background;
mod block;
mod clients;
mod execute;
mod fuse;
mod server;

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};

pub use self::action::Action;
use crate::child::{copy_program, die_with_parent};

/// Marks the program as a tenant.
const MARK: &str = "TESTKIT_TENANT";

/// A drop kills it, as does the kernel when the thread that started it ends.
#[derive(Debug)]
pub struct Tenant {
    child: Child,
    /// The pid of the active process: another one after [`Action::Fork`].
    pid: u32,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Settings of a tenant.
#[derive(Debug, Default)]
pub struct TenantSpec {
    /// A link to, or a copy of, the test program. The daemon recognises its file name.
    pub program: PathBuf,
    pub argv: Vec<OsString>,
    /// `None` is the user of the test.
    pub uid: Option<u32>,
    /// Descriptors that it inherits under these numbers, from 100 on.
    pub descriptors: Vec<(OwnedFd, RawFd)>,
    pub directory: Option<PathBuf>,
}

/// The length of a frame of [`Action::Send`].
pub const FRAME: u64 = 342;

impl Tenant {
    pub fn start(spec: TenantSpec) -> Result<Self> {
        let program = spec.program;
        let mut command = Command::new(&program);
        command.args(&spec.argv).env(MARK, "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(uid) = spec.uid {
            // The kernel keeps root's other groups otherwise.
            command.uid(uid).gid(uid);
        }
        if let Some(directory) = spec.directory {
            command.current_dir(directory);
        }
        inherit(&mut command, spec.descriptors);
        die_with_parent(&mut command);
        let mut child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        let commands = child.stdin.take().context("a tenant without input")?;
        let answers = BufReader::new(child.stdout.take().context("a tenant without output")?);
        let mut tenant = Self { pid: child.id(), child, commands, answers };
        tenant.answer().with_context(|| format!("start {}", program.display()))?;
        Ok(tenant)
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Requests this action and waits for its result.
    pub fn perform(&mut self, action: &Action) -> Result<u64> {
        let line = serde_json::to_string(action).context("write an action")?;
        let what = || format!("process {}: {}", self.pid, line.chars().take(300).collect::<String>());
        writeln!(self.commands, "{line}").with_context(what)?;
        let answer = self.answer().with_context(|| line.chars().take(300).collect::<String>())?;
        if matches!(action, Action::Fork { .. }) {
            self.pid = u32::try_from(answer).context("a pid")?;
        }
        Ok(answer)
    }

    /// Opens a TAP in the tenant's namespace, brings it up, and returns its descriptor.
    pub fn open_tap(&mut self, name: &str) -> Result<RawFd> {
        let open = Action::OpenTap { name: name.to_owned(), multi_queue: false, up: true };
        RawFd::try_from(self.perform(&open)?).context("a descriptor")
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.child.kill().and_then(|()| self.child.wait()).context("kill a tenant")?;
        let forked = (self.pid != self.child.id()).then_some(self.pid.cast_signed());
        if let Some(pid) = forked.and_then(Pid::from_raw) {
            // It may have exited already. Another process reaps it.
            let _ = kill_process(pid, Signal::KILL);
        }
        Ok(())
    }

    fn answer(&mut self) -> Result<u64> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context("read from a tenant")?;
        let answer: Result<u64, String> =
            serde_json::from_str(&line).with_context(|| format!("a tenant ended with {line:?}"))?;
        answer.map_err(|problem| anyhow!(problem))
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

/// Returns at once unless this process is a tenant. A tenant performs actions until its test ends, and never returns.
#[expect(clippy::exit, reason = "it runs before main, which is not to follow")]
pub fn run_if_asked() {
    if env::var_os(MARK).is_none() {
        return;
    }
    let mut state = execute::State::default();
    let obeyed = say(&Ok(0)).and_then(|()| {
        // A buffer would lose its content at an exec.
        while let Some(line) = read_line()? {
            let action = serde_json::from_slice(&line).context("read an action")?;
            let answer = state.perform(action).map_err(|error| format!("{error:#}"));
            say(&answer)?;
        }
        Ok(())
    });
    if let Err(error) = &obeyed {
        eprintln!("tenant {}: {error:#}", std::process::id());
    }
    std::process::exit(i32::from(obeyed.is_err()));
}

fn say(answer: &Result<u64, String>) -> Result<()> {
    let line = serde_json::to_string(answer).context("write an answer")?;
    io::stdout().write_all(format!("{line}\n").as_bytes()).context("answer")?;
    io::stdout().flush().context("answer")
}

fn read_line() -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        // The test sends the next line only after the result of this one.
        match rustix::io::read(io::stdin().as_fd(), &mut chunk).context("read from the test")? {
            0 => return Ok(None),
            length => line.extend_from_slice(&chunk[..length]),
        }
        if line.ends_with(b"\n") {
            return Ok(Some(line));
        }
    }
}

/// Makes the child inherit these descriptors under these numbers.
fn inherit(command: &mut Command, descriptors: Vec<(OwnedFd, RawFd)>) {
    let duplicate = move || {
        for (fd, number) in &descriptors {
            // SAFETY: dup2 takes any two numbers, and the second is no descriptor of a Rust value.
            if unsafe { libc::dup2(fd.as_raw_fd(), *number) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls and allocates nothing.
    unsafe { command.pre_exec(duplicate) };
}

/// Puts the test program at this path, as a link, or as a copy on another file system.
pub fn link_test_program(path: &Path) -> Result<()> {
    let program = env::current_exe().context("find the running program")?;
    if std::fs::hard_link(&program, path).is_err() {
        copy_program(&program, path)?;
    }
    Ok(())
}
