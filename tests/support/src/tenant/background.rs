//! A tenant's background actions: threads with a stop, and programs.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

use super::clients;
use crate::child::die_with_parent;
use crate::frames::Frame;
use crate::link::{Link, ip};
use crate::tap::{Tap, TapOptions};

/// Programs of [`keep_spawning`] that live at once.
const ALIVE: usize = 8;

/// A thread that repeats an action until it is stopped.
#[derive(Debug)]
pub(super) struct Background {
    ends: Arc<AtomicBool>,
    /// Pause in milliseconds after each round.
    pause: Arc<AtomicU64>,
    thread: JoinHandle<Result<u64>>,
}

impl Background {
    fn start(mut step: impl FnMut() -> Result<()> + Send + 'static) -> Self {
        let (ends, pause) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (published, rests) = (Arc::clone(&ends), Arc::clone(&pause));
        let run = move || {
            let mut rounds = 0;
            while !published.load(Ordering::Relaxed) {
                step()?;
                rounds += 1;
                thread::sleep(Duration::from_millis(rests.load(Ordering::Relaxed)));
            }
            Ok(rounds)
        };
        Self { ends, pause, thread: thread::spawn(run) }
    }

    /// Sets the pause in milliseconds after each round.
    pub(super) fn rest(&self, pause: u64) {
        self.pause.store(pause, Ordering::Relaxed);
    }

    /// Stops it, and returns its rounds or its earlier error.
    pub(super) fn stop(self) -> Result<u64> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("a thread has panicked")?
    }
}

pub(super) fn spawn(program: &Path, argv: &[String], number: usize) -> Result<Child> {
    let mut command = Command::new(program);
    let number = number.to_string();
    command.args(argv.iter().map(|argument| argument.replace("{n}", &number)));
    // Only the tenant itself may write answers.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    die_with_parent(&mut command);
    command.spawn().with_context(|| format!("start {}", program.display()))
}

pub(super) fn keep_spawning(program: PathBuf, argv: Vec<String>, pause: u64) -> Background {
    let mut number = 0;
    let mut alive = Vec::new();
    Background::start(move || {
        alive.push(KillOnDrop(spawn(&program, &argv, number)?));
        number += 1;
        if alive.len() > ALIVE {
            alive.remove(0);
        }
        thread::sleep(Duration::from_millis(pause));
        Ok(())
    })
}

pub(super) fn keep_connecting(address: SocketAddr, text: String) -> Background {
    Background::start(move || {
        // The attack continues when the server refuses or closes a connection.
        let _ = clients::connect(address, &text).and_then(clients::reset);
        Ok(())
    })
}

pub(super) fn keep_swapping(one: RawFd, other: RawFd, to: Vec<RawFd>) -> Background {
    Background::start(move || {
        for from in [one, other] {
            to.iter().try_for_each(|to| duplicate(from, *to))?;
        }
        Ok(())
    })
}

pub(super) fn keep_opening() -> Background {
    const PAUSE: Duration = Duration::from_millis(30);
    Background::start(|| {
        let one = File::open("/dev/null").context("open /dev/null")?;
        thread::sleep(PAUSE);
        drop(one);
        thread::sleep(PAUSE);
        Ok(())
    })
}

pub(super) fn keep_flapping(count: usize) -> Result<Background> {
    let mut links = Vec::new();
    for number in 0..count {
        let (link, peer) = (format!("flap{number}"), format!("peer{number}"));
        ip(&["link", "add", &link, "type", "veth", "peer", "name", &peer])?;
        links.push(Link::named(link));
    }
    Ok(Background::start(move || {
        for link in &links {
            link.up()?;
            link.down()?;
        }
        Ok(())
    }))
}

/// Remakes a TAP, each time with a frame.
pub(super) fn keep_remaking_a_tap(name: String) -> Background {
    let frame = Frame::from_guest().udp4(300);
    Background::start(move || {
        // A daemon that inspects its descriptor holds it a moment longer.
        let Ok(tap) = Tap::create(&name, TapOptions::default()) else { return Ok(()) };
        tap.link().up()?;
        tap.write_frame(&frame)
    })
}

/// Opens connections: silent, with half a request, and with a whole one. The daemon may be absent.
pub(super) fn keep_requesting(address: SocketAddr) -> Background {
    const REQUEST: &str = "GET /-/healthy HTTP/1.0\r\nHost: localhost\r\n\r\n";
    let mut rounds = 0;
    Background::start(move || {
        rounds += 1;
        let Ok(mut stream) = TcpStream::connect(address) else { return Ok(()) };
        let length = [0, REQUEST.len() / 2, REQUEST.len()][rounds % 3];
        if length > 0 && stream.write_all(&REQUEST.as_bytes()[..length]).is_ok() && length == REQUEST.len() {
            stream.set_read_timeout(Some(Duration::from_secs(1))).context("set the read timeout")?;
            // The daemon may end meanwhile.
            let _ = stream.read_to_end(&mut Vec::new());
        }
        Ok(())
    })
}

/// Duplicates like dup2, on numbers that belong to no Rust value.
pub(super) fn duplicate(from: RawFd, to: RawFd) -> Result<()> {
    // SAFETY: dup2 takes any two numbers; the test owns the second.
    if unsafe { libc::dup2(from, to) } < 0 {
        return Err(io::Error::last_os_error()).context("dup2");
    }
    Ok(())
}

/// A child process that its drop kills.
#[derive(Debug)]
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
