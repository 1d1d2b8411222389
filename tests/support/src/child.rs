//! A child process that never outlives its test.
//!
//! Its drop kills and reaps it, and so does the kernel if the test is killed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::wait::wait_until;

/// The kernel kills the process when the *thread* that started it ends.
#[derive(Debug)]
pub struct ChildProcess {
    name: String,
    child: Child,
    /// An unnamed file, so that nothing remains of it.
    log: File,
}

impl ChildProcess {
    /// Starts the command without input. [`Self::log`] collects both outputs.
    pub fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        let log = tempfile::tempfile().with_context(|| format!("make a log file for {name}"))?;
        // Both outputs share one open file, so that neither overwrites the other.
        let output = || log.try_clone().with_context(|| format!("duplicate the log file of {name}"));
        command.stdin(Stdio::null()).stdout(output()?).stderr(output()?);
        die_with_parent(command);
        let child = command.spawn().with_context(|| format!("start {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the output so far.
    pub fn log(&self) -> String {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            // Reads at an offset, because the process writes at the position of the file.
            match self.log.read_at(&mut chunk, bytes.len() as u64) {
                Ok(0) => return String::from_utf8_lossy(&bytes).into_owned(),
                Ok(length) => bytes.extend_from_slice(&chunk[..length]),
                Err(error) => return format!("(read the log of {}: {error})", self.name),
            }
        }
    }

    /// Fails with the exit status if the process ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} has ended, {status}", self.name),
        }
    }

    /// Waits until its output satisfies a condition.
    pub fn wait_for_log<T>(
        &mut self,
        deadline: Duration,
        what: &str,
        find: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let what = format!("{} to print {what}", self.name);
        let found = wait_until(deadline, &what, || match find(&self.log()) {
            Some(value) => Ok(Some(value)),
            None => self.check_running().map(|()| None),
        });
        found.map_err(|error| anyhow!("{error:#}; its log:\n{}", self.log()))
    }

    /// Sends the signal; the process may have ended already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("send {signal:?} to {}", self.name))
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait_until(deadline, &what, || self.try_wait())
            .map_err(|error| anyhow!("{error:#}; its log:\n{}", self.log()))
    }

    /// Sends SIGKILL and waits for the end. An ended process is no error.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill().with_context(|| format!("kill {}", self.name))?;
        self.child.wait().with_context(|| format!("wait for {}", self.name))
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("wait for {}", self.name))
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let killed = self.kill();
        // A failing test shows the output of its helpers, and must not panic again.
        if thread::panicking() {
            eprintln!("the log of {}:\n{}", self.name, self.log());
        }
        if let Err(error) = killed {
            eprintln!("{error:#}");
        }
    }
}

/// Copies a program by another process.
///
/// A child of this process holds its descriptors until exec, and the kernel executes no file that a process may still
/// write to.
pub fn copy_program(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("install").arg(from).arg(to).status().context("run install")?;
    ensure!(status.success(), "install {} {}: {status}", from.display(), to.display());
    Ok(())
}

/// Makes the kernel kill the command's process when the thread that starts it ends, even by SIGKILL.
pub fn die_with_parent(command: &mut Command) {
    let set = || set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from);
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(set) };
}
