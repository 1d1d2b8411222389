//! Executes a puppet's commands in its own process.

use std::collections::HashMap;
use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process;
use std::ptr;
use std::slice;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{MemfdFlags, OFlags, fsync, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::thread::{CpuSet, gettid, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use super::{MARK, SAYS};

/// Returns at once unless this process is a puppet, which executes commands until it is killed.
pub fn run_if_asked() -> Result<()> {
    if env::var_os(MARK).is_none() {
        return Ok(());
    }
    let mut threads = HashMap::new();
    say("ok")?;
    for command in io::stdin().lock().lines() {
        match obey(&command.context("read a command")?, &mut threads) {
            Ok(answer) => say(&format!("ok {answer}"))?,
            Err(error) => say(&format!("error {error:#}"))?,
        }
    }
    bail!("the puppet gets no more commands")
}

/// A test harness would capture print!.
fn say(line: &str) -> Result<()> {
    io::stdout().write_all(format!("{SAYS}{line}\n").as_bytes()).context("answer")
}

#[derive(Debug)]
struct Worker {
    thread: JoinHandle<()>,
    work: Sender<Duration>,
    done: Receiver<()>,
}

fn obey(command: &str, threads: &mut HashMap<u32, Worker>) -> Result<String> {
    // The last argument may contain spaces.
    let (verb, rest) = command.split_once(' ').context("no command")?;
    match verb {
        "map" => map(rest)?,
        "write" => write(rest)?,
        "read" => read(rest)?,
        "pin" => pin(rest.parse()?)?,
        "start" => {
            let (id, worker) = start(rest)?;
            threads.insert(id, worker);
            return Ok(id.to_string());
        }
        "work" => {
            let (id, milliseconds) = rest.split_once(' ').context("no time")?;
            let worker = threads.get(&id.parse()?).context("no such thread")?;
            worker.work.send(Duration::from_millis(milliseconds.parse()?)).context("the thread has ended")?;
            worker.done.recv().context("the thread has ended")?;
        }
        "end" => {
            let Worker { thread, work, .. } = threads.remove(&rest.parse()?).context("no such thread")?;
            drop(work);
            thread.join().ok().context("the thread has panicked")?;
        }
        other => bail!("no command {other:?}"),
    }
    Ok(String::new())
}

fn map(arguments: &str) -> Result<()> {
    let (memory, rest) = arguments.split_once(' ').context("no size")?;
    let (bytes, path) = rest.split_once(' ').context("no file")?;
    let bytes: u64 = bytes.parse()?;
    match memory {
        "Anon" => touch(None, bytes),
        "Shmem" => {
            let memory = memfd_create("puppet", MemfdFlags::CLOEXEC).context("make a memfd")?;
            ftruncate(&memory, bytes).context("size a memfd")?;
            touch(Some(&memory), bytes)
        }
        _ => touch(Some(&OpenOptions::new().read(true).write(true).open(path)?), bytes),
    }
}

/// Maps memory for good and writes to every page.
fn touch(of: Option<&dyn AsFd>, bytes: u64) -> Result<()> {
    let length = usize::try_from(bytes)?;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses; it is never unmapped.
    let memory = unsafe {
        match of {
            Some(file) => mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, file.as_fd(), 0),
            None => rustix::mm::mmap_anonymous(ptr::null_mut(), length, protection, MapFlags::PRIVATE),
        }
    };
    // SAFETY: the mapping has this length, and no other code refers to it.
    let memory = unsafe { slice::from_raw_parts_mut(memory.context("map memory")?.cast::<u8>(), length) };
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    Ok(())
}

fn write(arguments: &str) -> Result<()> {
    let (bytes, rest) = arguments.split_once(' ').context("no sync")?;
    let (sync, path) = rest.split_once(' ').context("no file")?;
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(&vec![7; bytes.parse()?])?;
    if sync.parse()? {
        fsync(&file).context("sync")?;
    }
    Ok(())
}

fn read(path: &str) -> Result<()> {
    const BLOCK: usize = 64 << 10;
    let direct = OFlags::DIRECT.bits().cast_signed();
    let mut file: File = OpenOptions::new().read(true).custom_flags(direct).open(path)?;
    let mut memory = vec![0; 2 * BLOCK];
    let start = memory.as_ptr().align_offset(4096);
    while file.read(&mut memory[start..start + BLOCK])? > 0 {}
    Ok(())
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    for thread in std::fs::read_dir(format!("/proc/{}/task", process::id()))? {
        let id = thread?.file_name().to_string_lossy().parse().context("no thread id")?;
        sched_setaffinity(rustix::thread::Pid::from_raw(id), &set).context("pin a thread")?;
    }
    Ok(())
}

/// Starts a thread, which reports its id and then works on command.
fn start(name: &str) -> Result<(u32, Worker)> {
    let (work, orders) = mpsc::channel::<Duration>();
    let (finished, done) = mpsc::channel();
    let (says_id, id) = mpsc::channel();
    let run = move || {
        let _ = says_id.send(gettid().as_raw_nonzero().get().cast_unsigned());
        for time in orders {
            burn(time);
            let _ = finished.send(());
        }
    };
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run).context("start a thread")?;
    Ok((id.recv().context("the thread has ended")?, Worker { thread, work, done }))
}

/// Uses this much CPU time in the calling thread.
fn burn(time: Duration) {
    let used = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
    let start = used();
    while used().saturating_sub(start) < time {}
}
