//! Reader `proc_stat`: CPU time, page faults and threads, from `/proc/<pid>/stat`.
//!
//! The CPU clock of the process counts nanoseconds, so it takes precedence over `stat`, which has clock ticks.

use std::collections::{HashMap, HashSet};

use rustix::param::clock_ticks_per_second;

use super::cpu_clock::CpuClocks;
use super::exits::Exits;
use super::files::ProcessFiles;
use crate::host::Host;
use crate::model::{Batch, InstanceInfo, ProcessReading, ProcessStats, Tenant, Trust, VmSet};
use crate::net::namespaces::Namespaces;
use crate::procfs::{Stat, parse_stat};
use crate::readers::{ReadReport, Reader, ReaderContext, ReaderDef, ReaderError, StartOutcome};

pub(crate) const READER: ReaderDef = ReaderDef {
    name: "proc_stat",
    configure: |section| {
        section.no_options()?;
        Ok(Box::new(|context| StartOutcome::Running(Box::new(ProcStat::new(context)))))
    },
};

/// CPU time that a process has used, in microseconds: user and system, all threads.
///
/// Source: fields 14 and 15 of `/proc/<pid>/stat`, in clock ticks of `sysconf(_SC_CLK_TCK)` (10 ms nearly everywhere).
/// The process of a VM is its hypervisor, so emulation counts as well as the guest's own time.
///
/// ```
/// assert!(vm_metrics::read_proc_stat(std::process::id()).is_ok());
/// ```
///
/// # Errors
/// When there is no such process, its file may not be read, or is not in the kernel's format.
pub fn read_proc_stat(pid: u32) -> Result<u64, ReaderError> {
    let path = Host::default().process(pid).join("stat");
    let content = std::fs::read(&path).map_err(|error| ReaderError::io("read", &path, error))?;
    let stat = parse_stat(&content).map_err(|source| ReaderError::Parse { path, source })?;
    Ok(cpu_usec(&stat, clock_ticks_per_second()))
}

#[derive(Debug)]
struct ProcStat {
    files: ProcessFiles<Stat>,
    ticks_per_second: u64,
    clocks: Option<CpuClocks>,
    /// `None` if the pids are of another namespace than this process's.
    exits: Option<Exits>,
    trust: Trust,
    /// The last published CPU time of each process.
    published: HashMap<u32, CpuRecord>,
    /// The processes of this tick.
    wanted: HashSet<u32>,
}

#[derive(Debug)]
struct CpuRecord {
    /// Identifies the process, with the pid.
    start_ticks: u64,
    cpu_usec: u64,
}

impl Reader for ProcStat {
    fn read(&mut self, vms: &VmSet, _: &mut Namespaces, batch: &mut Batch) -> ReadReport {
        let mut report = ReadReport::default();
        let tenants: HashMap<u32, Tenant> =
            vms.vms.iter().filter_map(|vm| Some((vm.hypervisor_pid?, Tenant::of(vm, &self.trust)))).collect();
        let incomplete = batch.incomplete(vms);
        report.read_before = batch.complete.len();
        // Before the files, which prove that it is still the process that had the pid a tick ago.
        let clocks = self.clocks_nsec(&incomplete);
        for (pid, result) in self.files.read_all(&incomplete, &mut report) {
            let clock_nsec = clocks.get(&pid).copied();
            match result {
                Ok(Some(stat)) if !stat.is_dead() => {
                    let reading = batch.processes.entry(pid).or_default();
                    self.take(pid, &stat, clock_nsec, reading);
                    report.items += 1;
                }
                Ok(_) => {
                    batch.ended.insert(pid);
                    report.error(ReaderError::NoProcess { pid });
                }
                Err(error) => report.error(error),
            }
        }
        for (pid, tenant) in tenants {
            let Some(reading) = batch.processes.get_mut(&pid) else { continue };
            let Some(start_ticks) = reading.start_ticks else { continue };
            if batch.complete.contains(&pid) {
                let now = reading.stats.cpu_usec;
                reading.stats.cpu_usec = now.map(|now| self.cpu_usec(pid, start_ticks, now));
            }
            if let Some(exits) = &mut self.exits {
                exits.follow(pid, start_ticks, tenant);
            }
        }
        self.wanted = vms.pids().collect();
        let wanted = |pid| self.wanted.contains(&pid) && !batch.complete.contains(&pid);
        self.files.retain(wanted);
        report
    }

    /// A terminated process that its parent has not reaped still has its total.
    fn read_final(&mut self, removals: &VmSet, _: &mut Namespaces, batch: &mut Batch) {
        let removed: Vec<&InstanceInfo> = removals.vms.iter().collect();
        let clocks = self.clocks_nsec(&removed);
        for (pid, result) in self.files.read_all(&removed, &mut ReadReport::default()) {
            let clock_nsec = clocks.get(&pid).copied();
            let known = self.published.get(&pid).map(|last| last.start_ticks);
            let Ok(stat) = result else { continue };
            let is_it = |stat: &Stat| known == Some(stat.start_ticks);
            // Another process may have its pid by now.
            if stat.is_none_or(|stat| stat.is_dead() || (known.is_some() && !is_it(&stat))) {
                batch.ended.insert(pid);
            }
            if let Some(stat) = stat.filter(is_it) {
                let reading = batch.removed_processes.entry(pid).or_default();
                self.take(pid, &stat, clock_nsec, reading);
            }
        }
        let wanted = |pid| self.wanted.contains(&pid);
        self.files.retain(wanted);
        self.published.retain(|pid, _| wanted(*pid));
        if let Some(exits) = &mut self.exits {
            exits.keep_only(wanted);
        }
    }
}

impl ProcStat {
    fn new(context: &ReaderContext) -> Self {
        let clocks = CpuClocks::new(&context.host);
        Self {
            files: ProcessFiles::new(context, "proc_stat", "stat", parse_stat),
            ticks_per_second: clock_ticks_per_second(),
            exits: clocks.is_some().then(|| Exits::new(context.watch.clone())),
            clocks,
            trust: context.trust.clone(),
            published: HashMap::new(),
            wanted: HashSet::new(),
        }
    }

    fn clocks_nsec(&self, vms: &[&InstanceInfo]) -> HashMap<u32, u64> {
        let Some(clocks) = self.clocks else { return HashMap::new() };
        let pids = vms.iter().filter_map(|vm| vm.hypervisor_pid);
        pids.filter_map(|pid| clocks.read_nsec(pid).map(|nsec| (pid, nsec))).collect()
    }

    fn take(&mut self, pid: u32, stat: &Stat, clock_nsec: Option<u64>, reading: &mut ProcessReading) {
        reading.start_ticks = Some(stat.start_ticks);
        let now = clock_nsec.map_or_else(|| cpu_usec(stat, self.ticks_per_second), |nsec| nsec / 1000);
        let stats = ProcessStats {
            cpu_usec: Some(self.cpu_usec(pid, stat.start_ticks, now)),
            minor_page_faults: Some(stat.minor_faults),
            major_page_faults: Some(stat.major_faults),
            threads: Some(stat.threads),
            ..ProcessStats::default()
        };
        reading.add(stats);
    }

    /// The greater of the last value and the present one, because clock ticks lag behind the clock.
    fn cpu_usec(&mut self, pid: u32, start_ticks: u64, now: u64) -> u64 {
        let last = self.published.entry(pid).or_insert(CpuRecord { start_ticks, cpu_usec: now });
        let same = last.start_ticks == start_ticks;
        *last = CpuRecord { start_ticks, cpu_usec: if same { now.max(last.cpu_usec) } else { now } };
        last.cpu_usec
    }
}

fn cpu_usec(stat: &Stat, ticks_per_second: u64) -> u64 {
    let ticks = u128::from(stat.utime_ticks) + u128::from(stat.stime_ticks);
    u64::try_from(ticks * 1_000_000 / u128::from(ticks_per_second.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Trust;

    #[test]
    fn own_cpu_time_grows_with_work() {
        let pid = std::process::id();
        let before = read_proc_stat(pid).expect("own stat");
        let mut deadline = vm_metrics_testkit::wait::Deadline::after(std::time::Duration::from_secs(30));
        while read_proc_stat(pid).expect("own stat") < before + 50_000 {
            assert!(!deadline.has_passed(), "no CPU time in 30 s of work");
        }
    }

    #[test]
    fn cpu_time_goes_on_without_the_clock() {
        let files =
            ProcessFiles::with_room(Host::default(), Trust::default(), 1, "proc_stat", "stat", parse_stat);
        let mut reader = ProcStat {
            files,
            ticks_per_second: 100,
            clocks: None,
            exits: None,
            trust: Trust::default(),
            published: HashMap::new(),
            wanted: HashSet::new(),
        };
        assert_eq!(reader.cpu_usec(7, 1, 59_999), 59_999);
        assert_eq!(reader.cpu_usec(7, 1, 50_000), 59_999, "in ticks");
        assert_eq!(reader.cpu_usec(7, 1, 70_000), 70_000);
        assert_eq!(reader.cpu_usec(7, 2, 10_000), 10_000, "another process");
    }

    #[test]
    fn no_such_process_names_the_file() {
        let error = read_proc_stat(u32::MAX).expect_err("no such process");
        assert!(error.to_string().contains("4294967295/stat"), "{error}");
    }
}
