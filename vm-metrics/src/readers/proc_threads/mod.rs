//! The threads of the hypervisor process, from `/proc/<pid>/task`: what each vCPU uses, and how long threads wait for a
//! CPU.
//!
//! Nobody keeps what a thread that has ended waited. So what all threads wait is added up here, tick by tick, from the
//! first look on: the sum goes on when a thread ends, and begins with nothing when the daemon starts anew.

mod process;
mod vcpu_name;

use std::collections::{HashMap, HashSet};

use rustix::process::{Resource, getrlimit};

use self::process::Process;
use super::kept::Buffer;
use super::{ReadReport, Reader, ReaderDef, ReaderError, Started};
use crate::host::Host;
use crate::model::{Batch, Hypervisor, ThreadsReading, VmSet};
use crate::procfs::parse_stat;

pub(super) const DEF: ReaderDef = ReaderDef {
    name: "proc_threads",
    help: "time of each vCPU's thread, and time that threads wait for a CPU, from /proc/<pid>/task/<tid>/schedstat",
    configure: |section| {
        section.no_options()?;
        Ok(Box::new(|setting| Started::Running(Box::new(ProcThreads::new(setting.host.clone())))))
    },
};

#[derive(Debug)]
struct ProcThreads {
    host: Host,
    /// When this process started, on the clock of the others' starts; `None` on a host made of files.
    started_ticks: Option<u64>,
    /// How many files may be kept open.
    max_files: usize,
    processes: HashMap<u32, Process>,
}

impl ProcThreads {
    fn new(host: Host) -> Self {
        // The other half is for the files of the other readers, for links and for connections.
        let half = getrlimit(Resource::Nofile).current.map(|limit| limit / 2);
        let max_files = half.and_then(|half| half.try_into().ok()).unwrap_or(usize::MAX);
        let started_ticks = start_ticks(&host, std::process::id());
        Self { host, started_ticks, max_files, processes: HashMap::new() }
    }

    fn read_process(
        &mut self,
        pid: u32,
        hypervisor: Hypervisor,
        room: &mut usize,
        buffer: &mut Buffer,
        report: &mut ReadReport,
    ) -> Result<ThreadsReading, ReaderError> {
        let known = match self.processes.remove(&pid) {
            Some(process) => Some(process),
            None => Process::open(&self.host, pid, self.is_young(pid))?,
        };
        let gone = ReaderError::NoProcess { pid };
        let Some(mut process) = known else { return Err(gone) };
        let reading = process.read(hypervisor, room, buffer, report)?.ok_or(gone)?;
        self.processes.insert(pid, process);
        Ok(reading)
    }

    /// Whether a process was started after this one: nothing that it waited was published before.
    fn is_young(&self, pid: u32) -> bool {
        start_ticks(&self.host, pid).zip(self.started_ticks).is_some_and(|(process, own)| process >= own)
    }
}

impl Reader for ProcThreads {
    fn read(&mut self, vms: &VmSet, batch: &mut Batch) -> ReadReport {
        let mut report = ReadReport::default();
        let mut buffer = Buffer::new();
        let pids: HashSet<u32> = vms.pids().collect();
        self.processes.retain(|pid, _| pids.contains(pid));
        let mut room = self.max_files.saturating_sub(self.processes.values().map(Process::files).sum());
        for vm in &vms.vms {
            let Some(pid) = vm.hypervisor_pid else { continue };
            match self.read_process(pid, vm.hypervisor, &mut room, &mut buffer, &mut report) {
                Ok(reading) => {
                    batch.threads.insert(pid, reading);
                    report.items += 1;
                }
                Err(error) => report.error(error),
            }
        }
        report
    }
}

fn start_ticks(host: &Host, pid: u32) -> Option<u64> {
    let stat = std::fs::read(host.process(pid).join("stat")).ok()?;
    parse_stat(&stat).ok().map(|stat| stat.start_ticks)
}

#[cfg(test)]
mod tests;
