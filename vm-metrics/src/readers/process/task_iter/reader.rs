//! Chooses the processes that the program reads, and adds their numbers.

use std::collections::HashSet;

use rustix::param::{clock_ticks_per_second, page_size};
use vm_metrics_common::{TaskGroup, TaskLayout};

use super::program::TaskProgram;
use crate::host::Host;
use crate::model::{Batch, ComponentHealth, Health, ProcessStats, Trust, VmSet};
use crate::net::namespaces::Namespaces;
use crate::procfs::parse_stat;
use crate::readers::process::cpu_clock::CpuClocks;
use crate::readers::tap::ebpf::error::{LoadError, errno_of};
use crate::readers::tap::ebpf::kernel::Kernel;
use crate::readers::{ReadReport, Reader, ReaderContext, ReaderError, StartOutcome};

/// Processes of the first maps; larger ones follow when there are more.
const FEW: usize = 1024;

/// Processes that are read at most. Those of trusted users come first, and the others are read in `/proc`.
const MOST: usize = 1 << 16;

/// Threads of the host that a read may always visit.
const FREE_THREADS: u64 = 512;

/// Threads of the host to visit for one process of a trusted user. To visit more may cost more than the files.
const THREADS_PER_PROCESS: u64 = 16;

/// Reads of this process until one has all threads: others may end meanwhile.
const TRIES: usize = 10;

struct TaskIter {
    host: Host,
    layout: TaskLayout,
    program: TaskProgram,
    trust: Trust,
}

pub(super) fn start(context: &mut ReaderContext) -> StartOutcome {
    let Some(clocks) = CpuClocks::new(&context.host) else {
        let reason = "the pids in [host] are not those of this process: the files in /proc are read";
        return StartOutcome::Not(ComponentHealth::new(Health::Unsupported, reason));
    };
    match TaskIter::new(context, clocks) {
        Ok(reader) => StartOutcome::Running(Box::new(reader)),
        Err(error) => StartOutcome::Not(error.health()),
    }
}

impl TaskIter {
    fn new(context: &ReaderContext, clocks: CpuClocks) -> Result<Self, LoadError> {
        let layout = Kernel::read(&context.host.btf())?.tasks()?;
        let mut program = TaskProgram::load(&layout, FEW as u32)?;
        let stat = std::fs::read(context.host.process_itself().join("stat")).map_err(LoadError::Iterate)?;
        let start_ticks = parse_stat(&stat).map_err(|_| LoadError::OtherTasks)?.start_ticks;
        check(&mut program, start_ticks, clocks)?;
        Ok(Self { host: context.host.clone(), layout, program, trust: context.trust.clone() })
    }

    fn read_into(&mut self, wanted: &HashSet<u32>, batch: &mut Batch) -> Result<usize, LoadError> {
        if wanted.len() > self.program.capacity() {
            let processes = u32::try_from(wanted.len().next_power_of_two()).unwrap_or(u32::MAX);
            self.program = TaskProgram::load(&self.layout, processes)?;
        }
        self.program.follow(wanted)?;
        let run = self.program.run()?;
        let mut items = 0;
        for (pid, group) in self.program.whole_groups(run) {
            batch.processes.entry(pid).or_default().start_ticks = Some(start_ticks(&group));
            batch.add_process(pid, stats(&group));
            batch.complete.insert(pid);
            items += 1;
        }
        Ok(items)
    }
}

impl Reader for TaskIter {
    fn read(&mut self, vms: &VmSet, _: &mut Namespaces, batch: &mut Batch) -> ReadReport {
        let mut report = ReadReport::default();
        let (wanted, limit) = wanted(vms, &self.trust);
        if wanted.is_empty() {
            return report;
        }
        // Before the read, which nothing ends early.
        if self.host.threads().is_none_or(|threads| threads > limit) {
            report.error(ReaderError::TooManyThreads { limit });
            return report;
        }
        match self.read_into(&wanted, batch) {
            Ok(items) => report.items = items,
            Err(error) => report.error(ReaderError::Device {
                device: "iter/task".to_owned(),
                problem: error.in_one_line(),
                errno: errno_of(&error),
            }),
        }
        report
    }
}

/// The processes to read, and the most threads that a read may visit for them.
fn wanted(vms: &VmSet, trust: &Trust) -> (HashSet<u32>, u64) {
    let of = |trusted: bool| {
        let vms = vms.vms.iter().filter(move |vm| trust.is_trusted(vm.uid) == trusted);
        vms.filter_map(|vm| vm.hypervisor_pid)
    };
    let mut wanted: HashSet<u32> = of(true).take(MOST).collect();
    // Users who are not trusted could start processes for longer reads.
    let limit = FREE_THREADS + THREADS_PER_PROCESS * wanted.len() as u64;
    for pid in of(false) {
        if wanted.len() < MOST {
            wanted.insert(pid);
        }
    }
    (wanted, limit)
}

/// Whether the program and `/proc` tell the same of this process: its number, its start, and its CPU time.
fn check(program: &mut TaskProgram, start: u64, clocks: CpuClocks) -> Result<(), LoadError> {
    let own = std::process::id();
    program.follow(&HashSet::from([own]))?;
    let mut before = None;
    loop {
        let run = program.run()?;
        if program.is_ready(run) {
            break;
        }
        // Each run visits at least this thread.
        if before.replace(run.measured_cpus) == Some(run.measured_cpus) {
            return Err(LoadError::OtherTasks);
        }
    }
    for _ in 0..TRIES {
        let before = clocks.read_nsec(own);
        let run = program.run()?;
        let after = clocks.read_nsec(own);
        let is_it = |(_, group): (u32, TaskGroup)| {
            let cpu = Some(group.sums.cpu_nsec);
            start_ticks(&group) == start && before <= cpu && cpu <= after
        };
        if program.whole_groups(run).any(is_it) {
            return Ok(());
        }
    }
    Err(LoadError::OtherTasks)
}

/// The kernel rounds down, too.
fn start_ticks(group: &TaskGroup) -> u64 {
    group.start_nsec / (1_000_000_000 / clock_ticks_per_second().clamp(1, 1_000_000_000))
}

fn stats(group: &TaskGroup) -> ProcessStats {
    let bytes = |pages: u64| pages.saturating_mul(page_size() as u64);
    let (sums, pages) = (group.sums, group.pages);
    ProcessStats {
        cpu_usec: Some(sums.cpu_nsec / 1000),
        minor_page_faults: Some(sums.minor_faults),
        major_page_faults: Some(sums.major_faults),
        threads: Some(u64::from(group.threads)),
        memory_rss_bytes: Some(bytes(pages.anon + pages.file + pages.shmem)),
        memory_vms_bytes: Some(bytes(pages.total)),
        memory_anon_bytes: Some(bytes(pages.anon)),
        memory_file_bytes: Some(bytes(pages.file)),
        memory_shmem_bytes: Some(bytes(pages.shmem)),
        memory_hugetlb_bytes: Some(bytes(pages.hugetlb)),
        memory_swap_bytes: Some(bytes(pages.swap)),
        disk_read_bytes: Some(sums.read_bytes),
        disk_write_bytes: Some(sums.write_bytes),
        disk_cancelled_write_bytes: Some(sums.cancelled_write_bytes),
        ..ProcessStats::default()
    }
}

#[cfg(test)]
mod tests {
    use vm_metrics_common::TaskPages;

    use super::*;
    use crate::model::InstanceInfo;

    fn group() -> TaskGroup {
        let pages = TaskPages { total: 9, anon: 1, file: 2, shmem: 3, ..TaskPages::default() };
        TaskGroup {
            round: 7,
            start_nsec: 1_999_999_999,
            pages,
            threads: 2,
            visited: 2,
            ..TaskGroup::default()
        }
    }

    #[test]
    fn only_a_whole_group_is_taken() {
        assert!(group().is_whole(7), "all of it");
        assert!(!TaskGroup { visited: 3, ..group() }.is_whole(7), "an ended thread is in it twice");
        assert!(!group().is_whole(8), "of an earlier read");
        assert!(!TaskGroup { torn: 1, ..group() }.is_whole(7), "a thread has started or ended meanwhile");
        assert!(!TaskGroup { visited: 1, ..group() }.is_whole(7), "a thread is missing");
        assert!(!TaskGroup { start_nsec: 0, ..group() }.is_whole(7), "its first thread is missing");
        assert!(!TaskGroup { pages: TaskPages::default(), ..group() }.is_whole(7), "it has ended");
    }

    #[test]
    fn strangers_do_not_raise_the_limit() {
        let vm = |pid: u32, uid: u32| InstanceInfo {
            hypervisor_pid: Some(pid),
            uid: Some(uid),
            ..InstanceInfo::default()
        };
        let with = |strangers: u32| VmSet {
            vms: (0..2)
                .map(|pid| vm(pid + 1, 0))
                .chain((0..strangers).map(|pid| vm(pid + 3, 1000)))
                .collect(),
        };
        for strangers in [0, 100] {
            let (pids, limit) = wanted(&with(strangers), &Trust::default());
            assert_eq!((pids.len(), limit), (2 + strangers as usize, 512 + 2 * 16));
        }
    }

    #[test]
    fn numbers_have_the_units_of_proc() {
        assert_eq!(start_ticks(&group()), 2 * clock_ticks_per_second() - 1);
        let stats = stats(&group());
        assert_eq!(stats.memory_rss_bytes, Some(6 * page_size() as u64));
        assert_eq!((stats.memory_vms_bytes, stats.threads), (Some(9 * page_size() as u64), Some(2)));
    }
}
