//! A stand-in VM: a process with a TAP and real traffic.
//!
//! The process is another instance of the running program, selected by an environment variable. So `main`, or a test
//! that exists only for this, calls [`run_if_asked`] first.

use std::env;
use std::hint::black_box;
use std::io::{self, Write};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::child::ChildProcess;
use crate::frames::{ETHERNET_HEADER, Frame};
use crate::kvm;
use crate::link::Link;
use crate::packet_socket::PacketSocket;
use crate::tap::{Tap, TapOptions};
use crate::wait::SOON;

const SPEC: &str = "TESTKIT_STAND_IN";
const READY: &str = "stand-in VM is ready\n";
/// The interval of sending. At 40000 packets/s a batch still fits into the TAP's queue.
const TICK: Duration = Duration::from_millis(10);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StandInSpec {
    /// The name of its device, in the network namespace of the process that starts it.
    pub tap: String,
    pub sends: Traffic,
    pub receives: Traffic,
    /// Memory that it touches and keeps, like a guest's.
    pub memory_bytes: usize,
    /// The names of idle threads beside the main one.
    pub threads: Vec<String>,
}

/// UDP over IPv4 with equal frames.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Traffic {
    pub packets_per_second: u32,
    /// Length of the whole frame, at least 42; the TAP's MTU allows 1514.
    pub frame_bytes: usize,
}

/// A drop kills it, as does the kernel when the thread that started it ends. The TAP goes with the process.
#[derive(Debug)]
pub struct StandIn {
    process: ChildProcess,
    link: Link,
}

impl StandIn {
    /// Starts the process, and waits for its TAP and traffic. The command runs a program that calls [`run_if_asked`],
    /// mostly `env::current_exe()`.
    pub fn start(spec: &StandInSpec, command: Command) -> Result<Self> {
        let mut stand_in = Self::spawn(spec, command)?;
        stand_in.wait_until_ready()?;
        Ok(stand_in)
    }

    /// Starts the process like [`Self::start`], without waiting.
    pub fn spawn(spec: &StandInSpec, mut command: Command) -> Result<Self> {
        command.env(SPEC, serde_json::to_string(spec).context("write the spec of a stand-in VM")?);
        let process = ChildProcess::spawn(&format!("the stand-in VM of {}", spec.tap), &mut command)?;
        Ok(Self { process, link: Link::named(&spec.tap) })
    }

    /// Waits for its TAP and traffic.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        self.process.wait_for_log(SOON, "that it is ready", |log| log.contains(READY).then_some(()))
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn link(&self) -> &Link {
        &self.link
    }
}

/// Returns at once unless this process is a stand-in VM, which moves frames until it is killed.
pub fn run_if_asked() -> Result<()> {
    let Ok(spec) = env::var(SPEC) else { return Ok(()) };
    let spec: StandInSpec = serde_json::from_str(&spec).with_context(|| format!("read {SPEC}"))?;
    let memory = vec![1_u8; spec.memory_bytes];
    for name in &spec.threads {
        thread::Builder::new().name(name.clone()).spawn(park).context("start an idle thread")?;
    }
    let _kvm = kvm::hold_if_asked()?;
    let tap = Tap::create_up(&spec.tap, TapOptions::default())?;
    let host = PacketSocket::bind(&spec.tap)?;
    // A test harness would capture print!.
    io::stdout().write_all(READY.as_bytes()).context("report that the stand-in VM is ready")?;
    let result = move_frames(&spec, &tap, &host);
    black_box(memory);
    result
}

fn park() {
    loop {
        thread::park();
    }
}

fn move_frames(spec: &StandInSpec, tap: &Tap, host: &PacketSocket) -> Result<()> {
    let mut sends = Pacer::new(spec.sends, Frame::from_guest());
    let mut receives = Pacer::new(spec.receives, Frame::to_guest());
    let mut buffer = vec![0; 65_536];
    let pause = pause(spec).map(|pause| Timespec { tv_sec: 0, tv_nsec: pause.subsec_nanos().into() });
    let start = Instant::now();
    loop {
        for _ in 0..sends.due(start.elapsed()) {
            tap.write_frame(&sends.frame)?;
        }
        for _ in 0..receives.due(start.elapsed()) {
            host.send(&receives.frame)?;
        }
        // Reads frames from the host too, like a guest.
        while tap.read_frame(&mut buffer)?.is_some() {}
        match poll(&mut [PollFd::new(tap, PollFlags::IN)], pause.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).with_context(|| format!("poll {}", tap.name())),
        }
    }
}

/// Returns the time between two looks at the due frames; `None` without traffic. A thousand VMs share the CPUs, so that
/// a slow one must not wake up often.
fn pause(spec: &StandInSpec) -> Option<Duration> {
    let rate = spec.sends.packets_per_second.max(spec.receives.packets_per_second);
    (rate > 0).then(|| (Duration::from_millis(999) / rate).max(TICK))
}

/// The due frames of one direction.
struct Pacer {
    traffic: Traffic,
    frame: Vec<u8>,
    sent: u64,
}

impl Pacer {
    fn new(traffic: Traffic, frame: Frame) -> Self {
        const HEADERS: usize = ETHERNET_HEADER + 20 + 8;
        Self { traffic, frame: frame.udp4(traffic.frame_bytes.saturating_sub(HEADERS)), sent: 0 }
    }

    fn due(&mut self, elapsed: Duration) -> u64 {
        let all = (elapsed.as_secs_f64() * f64::from(self.traffic.packets_per_second)) as u64;
        // After a pause of the whole machine the missed frames must not follow in one burst.
        let burst = u64::from(self.traffic.packets_per_second) / 20 + 1;
        let due = (all - self.sent).min(burst);
        self.sent = all;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_paced_without_bursts() {
        let traffic = Traffic { packets_per_second: 1000, frame_bytes: 100 };
        let mut paced = Pacer::new(traffic, Frame::from_guest());
        assert_eq!(paced.frame.len(), 100);
        assert_eq!(paced.due(Duration::from_millis(10)), 10);
        assert_eq!(paced.due(Duration::from_millis(15)), 5);
        assert_eq!(paced.due(Duration::from_secs(10)), 51);
        assert_eq!(paced.due(Duration::from_secs(10)), 0);
    }
}
