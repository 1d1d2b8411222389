//! Reader `proc_threads`: vCPU times and waits, from `/proc/<pid>/task`.
//!
//! They give the CPU time of each vCPU, and the number and time of threads' waits for a CPU.
//!
//! The kernel forgets a thread's waits and switches at its end. So this reader sums both from its first reading on. The
//! sums stay when a thread ends, and begin at 0 with each daemon.

mod facts;
mod opens;
mod process;
mod share;
mod thread;
mod vcpu_name;
mod vcpus;

use std::collections::{HashMap, HashSet};

use self::facts::Facts;
use self::opens::{OF_STRANGERS, Opens};
use self::process::{Allowance, Process};
use self::share::{Demand, MAX_OF_PROCESS, MAX_OF_STRANGERS, shares};
use crate::host::Host;
use crate::model::{Batch, Hypervisor, InstanceInfo, ProcessStats, ThreadsReading, Trust, VmSet};
use crate::net::namespaces::Namespaces;
use crate::readers::cached_file::Buffer;
use crate::readers::{FileBudget, Purpose, ReadReport, Reader, ReaderDef, ReaderError, StartOutcome};

pub(crate) const READER: ReaderDef = ReaderDef {
    name: "proc_threads",
    configure: |section| {
        section.no_options()?;
        Ok(Box::new(|context| {
            let reader = ProcThreads::new(context.host.clone(), context.trust.clone(), context.purpose);
            StartOutcome::Running(Box::new(reader))
        }))
    },
};

#[derive(Debug)]
struct ProcThreads {
    host: Host,
    trust: Trust,
    purpose: Purpose,
    /// When this process started, on the clock of the others' starts; `None` on a host made of files.
    started_ticks: Option<u64>,
    /// How many files may be kept open.
    max_files: u64,
    /// How many files are opened in one tick for users who are not trusted.
    max_opens: usize,
    processes: HashMap<u32, Process>,
    facts: Facts,
    /// The last process that had a turn of those whose users share.
    last_turn: u32,
}

/// A process that is read in this tick.
#[derive(Debug)]
pub(crate) struct Turn {
    pid: u32,
    uid: Option<u32>,
    hypervisor: Hypervisor,
    threads: u64,
    allowance: Allowance,
}

impl Reader for ProcThreads {
    fn read(&mut self, vms: &VmSet, _: &mut Namespaces, batch: &mut Batch) -> ReadReport {
        let mut report = ReadReport::default();
        let mut buffer = Buffer::new();
        let pids: HashSet<u32> = vms.pids().collect();
        self.processes.retain(|pid, _| pids.contains(pid));
        let mut turns: Vec<Turn> = vms.vms.iter().filter_map(|vm| self.turn(vm, &mut report)).collect();
        let last_turn = self.last_turn;
        // Trusted users first; then the others, going on where the last tick ended.
        turns.sort_by_key(|turn| (!turn.allowance.is_trusted, turn.pid <= last_turn));
        self.share(&mut turns, &mut report);
        let mut opens = Opens::new(self.max_opens, &turns);
        for turn in &mut turns {
            opens.allow(turn);
            match self.read_process(turn, &mut buffer, &mut report) {
                Ok((reading, stats)) => {
                    batch.threads.insert(turn.pid, reading);
                    batch.add_process(turn.pid, stats);
                    report.items += 1;
                }
                Err(error) => report.error(error),
            }
            if opens.take(turn) {
                self.last_turn = turn.pid;
            }
        }
        vcpus::limit(vms, &self.trust, &mut batch.threads, &mut report.overuse);
        report
    }
}

impl ProcThreads {
    fn new(host: Host, trust: Trust, purpose: Purpose) -> Self {
        let max_files = FileBudget::of_this_process().threads;
        let started_ticks = facts::read((host.clone(), std::process::id())).start_ticks;
        Self {
            host,
            trust,
            purpose,
            started_ticks,
            max_files,
            processes: HashMap::new(),
            facts: Facts::new(),
            last_turn: 0,
            max_opens: OF_STRANGERS,
        }
    }

    /// The demand of a VM's process; `None` without a readable process.
    fn turn(&mut self, vm: &InstanceInfo, report: &mut ReadReport) -> Option<Turn> {
        let pid = vm.hypervisor_pid?;
        match self.count(pid, vm.uid) {
            Ok(threads) => {
                let is_trusted = self.trust.is_trusted(vm.uid);
                let allowance = Allowance { is_trusted, threads: 0, no_room: 0, opens: 0 };
                Some(Turn { pid, uid: vm.uid, hypervisor: vm.hypervisor, threads, allowance })
            }
            Err(error) => {
                report.error(error);
                None
            }
        }
    }

    fn count(&mut self, pid: u32, uid: Option<u32>) -> Result<u64, ReaderError> {
        let process = match self.processes.remove(&pid) {
            Some(process) => Some(process),
            None => {
                let is_young = self.is_young(pid, uid);
                Process::open(&self.host, pid, is_young, self.purpose)?
            }
        };
        let mut process = process.ok_or(ReaderError::NoProcess { pid })?;
        let threads = process.count()?;
        self.processes.insert(pid, process);
        Ok(threads.unwrap_or(MAX_OF_PROCESS))
    }

    /// Decides how many threads of each process are read. Trusted users take the files that they need; the others share the
    /// rest, within their budget.
    fn share(&self, turns: &mut [Turn], report: &mut ReadReport) {
        let mut room = self.max_files.saturating_sub(self.processes.len() as u64);
        for turn in turns.iter_mut().filter(|turn| turn.allowance.is_trusted) {
            let threads = turn.threads.min(room);
            room -= threads;
            turn.allow(threads, turn.threads);
        }
        let demand =
            |turn: &Turn| Demand { pid: turn.pid, uid: turn.uid, count: turn.threads.min(MAX_OF_PROCESS) };
        let strangers = || turns.iter().filter(|turn| !turn.allowance.is_trusted);
        let demands: Vec<Demand> = strangers().map(demand).collect();
        let by_budget = shares(MAX_OF_STRANGERS, &demands);
        let by_room = shares(room.min(MAX_OF_STRANGERS), &demands);
        for turn in turns.iter_mut().filter(|turn| !turn.allowance.is_trusted) {
            let share = by_budget[&turn.pid];
            turn.allow(by_room[&turn.pid], share);
            report.overuse.add(turn.uid, "threads", turn.threads - share);
        }
    }

    fn read_process(
        &mut self,
        turn: &mut Turn,
        buffer: &mut Buffer,
        report: &mut ReadReport,
    ) -> Result<(ThreadsReading, ProcessStats), ReaderError> {
        let gone = ReaderError::NoProcess { pid: turn.pid };
        let Self { processes, facts, host, .. } = self;
        let Some(process) = processes.get_mut(&turn.pid) else { return Err(gone) };
        let (pid, uid, is_trusted) = (turn.pid, turn.uid, turn.allowance.is_trusted);
        let by_program =
            || facts.of(host, pid, uid, is_trusted).map(|facts| facts.hypervisor).unwrap_or_default();
        let reading = process.read(turn.hypervisor, by_program, &mut turn.allowance, buffer, report);
        if !matches!(reading, Ok(Some(_))) {
            self.processes.remove(&turn.pid);
        }
        reading?.ok_or(gone)
    }

    /// Whether a process was started after this one: nothing that it waited was published before.
    fn is_young(&mut self, pid: u32, uid: Option<u32>) -> bool {
        let facts = self.facts.of(&self.host, pid, uid, self.trust.is_trusted(uid));
        let start = facts.and_then(|facts| facts.start_ticks);
        start.zip(self.started_ticks).is_some_and(|(process, own)| process >= own)
    }
}

impl Turn {
    /// Allows `threads`, out of the `share` that it would have with enough files.
    fn allow(&mut self, threads: u64, share: u64) {
        let number = |count: u64| count.try_into().unwrap_or(usize::MAX);
        self.allowance.threads = number(threads);
        self.allowance.no_room = number(share - threads);
    }
}

#[cfg(test)]
mod tests;
