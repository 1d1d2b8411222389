//! A child process with a hypervisor's name and a TAP.

use std::env;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use tempfile::TempDir;
use vm_metrics_testkit::child::ChildProcess;
use vm_metrics_testkit::child::copy_program;
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::SOON;

const SPEC: &str = "TESTKIT_VMM";

/// Length of a frame of the guest.
pub(crate) const FRAME: u64 = 342;

/// Several processes may have queues of one TAP, so that it outlives each of them.
pub(crate) const SHARED: TapOptions =
    TapOptions { vnet_hdr: false, offload: false, multi_queue: true, persist: false, ifindex: 0 };

/// A copy of the test program under a hypervisor's name.
pub(crate) struct Program {
    path: PathBuf,
    _dir: TempDir,
}

/// The work of a VM before it waits or ends.
#[derive(Clone, Copy, Default)]
pub(crate) struct Work {
    pub(crate) frames: u64,
    /// CPU time in milliseconds.
    pub(crate) cpu: u64,
    /// Life in milliseconds; 0: until SIGKILL.
    pub(crate) lives: u64,
}

pub(crate) struct Vmm(pub(crate) ChildProcess);

/// Shells that can stand for a VMM, which only has to exist.
const SHELLS: [&str; 2] = ["/bin/dash", "/bin/busybox"];

/// Idle VMMs that hold a TAP of the test. The test itself acts as the guest.
#[derive(Debug)]
pub(crate) struct Shell {
    path: PathBuf,
    _dir: TempDir,
}

/// Makes this directory, and a shell under this name in it.
pub(crate) fn idle_program(directory: &Path, name: &str) -> PathBuf {
    fs::create_dir_all(directory).unwrap();
    let path = directory.join(name);
    let shell = SHELLS.iter().find(|shell| Path::new(shell).exists()).expect("a shell");
    copy_program(Path::new(shell), &path).unwrap();
    path
}

impl Shell {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Its name makes it a VM.
        let path = idle_program(dir.path(), "qemu-system-x86_64");
        Self { path, _dir: dir }
    }

    /// Starts the VMM in the calling thread's network namespace. No other test may start a process meanwhile, which
    /// would inherit the TAP: see `isolated`.
    pub(crate) fn start(&self, id: &str, tap: &impl AsFd) -> ChildProcess {
        let mut command = Command::new(&self.path);
        command.arg0("sh").args(["-c", "kill -STOP $$", "sh", "-name", &format!("guest={id}")]);
        fcntl_setfd(tap, FdFlags::empty()).unwrap();
        let process = ChildProcess::spawn(id, &mut command).unwrap();
        fcntl_setfd(tap, FdFlags::CLOEXEC).unwrap();
        process
    }
}

impl Program {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qemu-system-x86_64");
        copy_program(&env::current_exe().unwrap(), &path).unwrap();
        Self { path, _dir: dir }
    }

    /// Starts a VM that has this TAP, and waits until it has done its work.
    pub(crate) fn start(&self, tap: &str, work: Work) -> Vmm {
        let mut vmm = self.start_at_once(tap, work);
        vmm.0.wait_for_log(SOON, "that it is done", |log| log.contains("done\n").then_some(())).unwrap();
        vmm
    }

    pub(crate) fn start_at_once(&self, tap: &str, work: Work) -> Vmm {
        let mut command = Command::new(&self.path);
        command.args(["--exact", "vmm::vmm", "--nocapture"]);
        command.env(SPEC, format!("{tap} {} {} {}", work.frames, work.cpu, work.lives));
        Vmm(ChildProcess::spawn("a VM", &mut command).unwrap())
    }
}

impl Vmm {
    pub(crate) fn pid(&self) -> u32 {
        self.0.pid()
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
    }
}

/// The child process of the other tests.
#[test]
fn vmm() {
    let Ok(spec) = env::var(SPEC) else { return };
    let words: Vec<&str> = spec.split(' ').collect();
    let [frames, cpu, lives] = [1, 2, 3].map(|at| words[at].parse::<u64>().unwrap());
    let tap = Tap::create_up(words[0], SHARED).unwrap();
    let used = || vm_metrics::read_proc_stat(std::process::id()).unwrap();
    let begin = std::time::Instant::now();
    if lives > 0 {
        // A guest boots before it sends.
        thread::sleep(Duration::from_millis(lives / 2));
    }
    let frame = Frame::from_guest().udp4(300);
    for _ in 0..frames {
        tap.write_frame(&frame).unwrap();
    }
    while used() < cpu * 1000 {}
    println!("done");
    if lives == 0 {
        thread::sleep(Duration::from_secs(3600));
    }
    thread::sleep(Duration::from_millis(lives).saturating_sub(begin.elapsed()));
}
