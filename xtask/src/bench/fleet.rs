//! The stand-in VMs: processes that look like QEMU to the daemon.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use vm_metrics_testkit::{
    child::copy_program,
    vm_process::{StandIn, StandInSpec, Traffic},
};

/// By this name the source `proc_scan` finds the VMs.
const PROGRAM: &str = "qemu-system-x86_64";

/// With the main thread these are four, like those of a small VM.
const THREADS: [&str; 3] = ["CPU 0/KVM", "CPU 1/KVM", "worker"];

/// A little traffic, so that counters change and the CPUs are free for the daemon.
const TRAFFIC: Traffic = Traffic { packets_per_second: 1, frame_bytes: 1000 };

const MEMORY_BYTES: usize = 64 << 10;

/// So long a daemon looks closely at a process that is new to it, in each tick.
pub const YOUTH: Duration = Duration::from_secs(11);

/// Number of processes that start at the same time.
const BATCH: usize = 16;

/// A drop ends all VMs.
#[derive(Debug)]
pub struct Fleet {
    program: PathBuf,
    vms: Vec<StandIn>,
}

impl Fleet {
    pub fn new(dir: &Path) -> Result<Self> {
        let program = dir.join(PROGRAM);
        let this = env::current_exe().context("find the running program")?;
        copy_program(&this, &program)?;
        Ok(Self { program, vms: Vec::new() })
    }

    /// Starts VMs until there are so many, and waits until none is young.
    pub fn grow_to(&mut self, count: u32) -> Result<()> {
        let numbers: Vec<usize> = (self.vms.len()..count as usize).collect();
        for batch in numbers.chunks(BATCH) {
            let started: Result<Vec<StandIn>> = batch.iter().map(|number| self.spawn(*number)).collect();
            for mut vm in started? {
                vm.wait_until_ready()?;
                self.vms.push(vm);
            }
        }
        if !numbers.is_empty() {
            thread::sleep(YOUTH);
        }
        Ok(())
    }

    pub fn pids_and_taps(&self) -> impl Iterator<Item = (u32, &str)> {
        self.vms.iter().map(|vm| (vm.pid(), vm.link().name()))
    }

    /// The command line is as QEMU has it, and the environment selects the stand-in.
    fn spawn(&self, number: usize) -> Result<StandIn> {
        let tap = format!("vmb{number}");
        let mut command = Command::new(&self.program);
        command.args(["-smp", "2", "-m", "256", "-name", &format!("guest=bench-{number},debug-threads=on")]);
        command.args(["-netdev", &format!("tap,id=net0,ifname={tap},script=no,downscript=no")]);
        let threads = THREADS.map(str::to_owned).to_vec();
        let spec =
            StandInSpec { tap, sends: TRAFFIC, receives: TRAFFIC, memory_bytes: MEMORY_BYTES, threads };
        StandIn::spawn(&spec, command)
    }
}

/// Returns the ids of all threads of a process.
pub fn threads(pid: u32) -> Result<Vec<String>> {
    let path = format!("/proc/{pid}/task");
    let list =
        || fs::read_dir(&path)?.map(|task| Ok(task?.file_name().to_string_lossy().into_owned())).collect();
    let threads: std::io::Result<Vec<String>> = list();
    threads.with_context(|| format!("list {path}"))
}
