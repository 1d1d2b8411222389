//! The same files by plain system calls: what a small collector would do.
//!
//! Nothing is parsed. So this is the least that a reader of these files can cost.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{pread, read};
use rustix::time::{ClockId, clock_gettime};

use super::{
    figures::Figures,
    fleet::{Fleet, threads},
};

/// All files fit, and the kernel fills them in one call.
const BUFFER: usize = 8192;

/// A sample reads the files of so many VMs at least.
const VMS_PER_SAMPLE: usize = 1000;

/// With more VMs this process would have more open files than a kernel permits.
const MAX_KEPT_VMS: usize = 2000;

#[derive(Debug)]
pub struct PlainReads {
    vms: usize,
    /// `stat`, `statm` and two counters of the TAP: the files of the Go collector before this daemon.
    four: Vec<CString>,
    /// These, and `status`, `io` and `schedstat` of each thread: all that the daemon's readers use.
    all: Vec<CString>,
    kept: Vec<OwnedFd>,
}

impl PlainReads {
    pub fn new(fleet: &Fleet) -> Result<Self> {
        let (mut vms, mut four, mut all) = (0, Vec::new(), Vec::new());
        for (pid, tap) in fleet.pids_and_taps() {
            vms += 1;
            let of_tap = |file: &str| format!("/sys/class/net/{tap}/statistics/{file}");
            let of_process = |file: &str| format!("/proc/{pid}/{file}");
            let few = [of_process("stat"), of_process("statm"), of_tap("rx_bytes"), of_tap("tx_bytes")];
            let schedstats = threads(pid)?.into_iter().map(|id| of_process(&format!("task/{id}/schedstat")));
            let more = [of_process("status"), of_process("io")].into_iter().chain(schedstats);
            for path in more.chain(few.clone()) {
                all.push(CString::new(path).context("a path with a zero")?);
            }
            for path in few {
                four.push(CString::new(path).context("a path with a zero")?);
            }
        }
        let kept =
            if vms <= MAX_KEPT_VMS { all.iter().map(open_file).collect::<Result<_>>()? } else { Vec::new() };
        Ok(Self { vms, four, all, kept })
    }

    /// Adds a sample of each kind, in microseconds of CPU time per VM.
    pub fn sample(&self, figures: &mut Figures) -> Result<()> {
        figures.add("plain.four_opened", self.cost(|| self.four.iter().try_for_each(open_and_read))?);
        figures.add("plain.all_opened", self.cost(|| self.all.iter().try_for_each(open_and_read))?);
        if !self.kept.is_empty() {
            figures.add("plain.all_kept", self.cost(|| self.kept.iter().try_for_each(read_again))?);
        }
        Ok(())
    }

    fn cost(&self, pass: impl Fn() -> Result<()>) -> Result<f64> {
        let passes = VMS_PER_SAMPLE.div_ceil(self.vms);
        let start = thread_cpu_time()?;
        (0..passes).try_for_each(|_| pass())?;
        let used = thread_cpu_time()? - start;
        Ok(used.as_secs_f64() * 1e6 / (passes * self.vms) as f64)
    }
}

fn open_file(path: &CString) -> Result<OwnedFd> {
    let opened = open(path.as_c_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    opened.with_context(|| format!("open {path:?}"))
}

fn open_and_read(path: &CString) -> Result<()> {
    let file = open_file(path)?;
    read(&file, &mut [0; BUFFER]).with_context(|| format!("read {path:?}"))?;
    Ok(())
}

fn read_again(file: &OwnedFd) -> Result<()> {
    pread(file, &mut [0; BUFFER], 0).context("read a kept file")?;
    Ok(())
}

fn thread_cpu_time() -> Result<Duration> {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).context("the CPU time of this thread")
}
