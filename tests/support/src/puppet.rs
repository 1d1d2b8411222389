//! A child process that uses resources on command.
//!
//! It maps memory, writes a file, and has named threads that work or rest. The process is another instance of the test
//! program, as with [`crate::vm_process`]. A test that exists only for this calls [`run_if_asked`].

mod run;

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

pub use self::run::run_if_asked;
use crate::child::die_with_parent;

/// Marks the program as a puppet.
const MARK: &str = "TESTKIT_PUPPET";
/// Prefix of a puppet's line; the test harness prints others.
const SAYS: &str = "puppet: ";

/// A drop kills it, as does the kernel when the thread that started it ends.
#[derive(Debug)]
pub struct Puppet {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// The kind of mapped memory.
#[derive(Clone, Copy, Debug)]
pub enum Memory {
    Anon,
    File,
    Shmem,
}

impl Puppet {
    /// `test` is the full name of the test that calls [`run_if_asked`].
    pub fn start(test: &str) -> Result<Self> {
        let program = env::current_exe().context("find the running program")?;
        let mut command = Command::new(program);
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(MARK, "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        die_with_parent(&mut command);
        let mut child = command.spawn().context("start a puppet")?;
        let commands = child.stdin.take().context("a puppet without input")?;
        let answers = BufReader::new(child.stdout.take().context("a puppet without output")?);
        let mut puppet = Self { child, commands, answers };
        puppet.answer().context("start a puppet")?;
        Ok(puppet)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Maps memory, from this new file for file memory, and touches every page.
    pub fn map(&mut self, memory: Memory, bytes: u64, file: &Path) -> Result<()> {
        if matches!(memory, Memory::File) {
            let made = File::create_new(file).and_then(|file| file.set_len(bytes));
            made.with_context(|| format!("make {}", file.display()))?;
        }
        self.tell(&format!("map {memory:?} {bytes} {}", file.display())).map(drop)
    }

    /// Maps an existing file, and touches every page.
    pub fn map_file(&mut self, bytes: u64, file: &Path) -> Result<()> {
        self.tell(&format!("map {:?} {bytes} {}", Memory::File, file.display())).map(drop)
    }

    /// Appends bytes to a file. If `sync`, they are on storage before it returns.
    pub fn write(&mut self, bytes: u64, sync: bool, file: &Path) -> Result<()> {
        self.tell(&format!("write {bytes} {sync} {}", file.display())).map(drop)
    }

    /// Reads a file from storage, without the page cache.
    pub fn read(&mut self, file: &Path) -> Result<()> {
        self.tell(&format!("read {}", file.display())).map(drop)
    }

    /// Starts an idle thread and returns its id.
    pub fn start_thread(&mut self, name: &str) -> Result<u32> {
        self.tell(&format!("start {name}"))?.parse().context("no thread id")
    }

    /// Keeps a thread busy until it used this much CPU time, and returns then.
    pub fn work(&mut self, thread: u32, milliseconds: u64) -> Result<()> {
        self.tell(&format!("work {thread} {milliseconds}")).map(drop)
    }

    pub fn end_thread(&mut self, thread: u32) -> Result<()> {
        self.tell(&format!("end {thread}")).map(drop)
    }

    /// Pins all threads, present and future, to this CPU.
    pub fn pin(&mut self, cpu: usize) -> Result<()> {
        self.tell(&format!("pin {cpu}")).map(drop)
    }

    /// Kills the process and leaves it as a zombie until the puppet is dropped.
    pub fn die(&mut self) -> Result<()> {
        self.child.kill().context("kill a puppet")
    }

    fn tell(&mut self, command: &str) -> Result<String> {
        writeln!(self.commands, "{command}").with_context(|| format!("send a puppet {command:?}"))?;
        self.answer().with_context(|| format!("send a puppet {command:?}"))
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        while self.answers.read_line(&mut line)? > 0 {
            // The harness may have written the beginning of the line.
            if let Some((_, message)) = line.split_once(SAYS) {
                return match message.trim().split_once(' ').unwrap_or((message.trim(), "")) {
                    ("ok", answer) => Ok(answer.to_owned()),
                    (_, problem) => bail!("{problem}"),
                };
            }
            line.clear();
        }
        bail!("the puppet has ended")
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = killed {
            eprintln!("kill a puppet: {error}");
        }
    }
}
