//! Reader `proc_smaps`: shared and private memory, from `/proc/<pid>/smaps_rollup`.
//!
//! The kernel goes through all pages, 30 ms for 2 GiB. So the file is read on request only, rarely, and by a separate
//! thread. A tick takes the results so far.

mod walker;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::walker::{Answer, Question, Walkers};
use crate::model::{Batch, ComponentHealth, Health, InstanceInfo, ProcessStats, Trust, VmSet};
use crate::net::namespaces::Namespaces;
use crate::readers::interval::interval;
use crate::readers::{Purpose, ReadReport, Reader, ReaderContext, ReaderDef, ReaderError, StartOutcome};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);

/// A one-shot command has no second tick for the answers.
const PATIENCE_OF_A_LOOK: Duration = Duration::from_secs(10);

pub(crate) const READER: ReaderDef = ReaderDef {
    name: "proc_smaps",
    configure: |section| {
        let interval = interval(section, DEFAULT_INTERVAL)?;
        Ok(Box::new(move |context| match Walkers::spawn(&context.host) {
            Ok(walkers) => StartOutcome::Running(Box::new(ProcSmaps::new(walkers, interval, context))),
            Err(error) => {
                let health = ComponentHealth::new(Health::Failed, format!("cannot start a thread: {error}"));
                StartOutcome::Not(health.with_errno(error.raw_os_error()))
            }
        }))
    },
};

#[derive(Debug)]
struct ProcSmaps {
    walkers: Walkers,
    trust: Trust,
    interval: Duration,
    /// How long a tick waits for answers.
    patience: Duration,
    started: Instant,
    known: HashMap<Process, Schedule>,
}

/// The start time separates it from a later process with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Process {
    pid: u32,
    start_ticks: Option<u64>,
}

#[derive(Debug, Default)]
struct Schedule {
    under_way: bool,
    /// When it is to be read again.
    due: Duration,
    /// The last reading; `None` before the first, and if the process is gone.
    last: Option<Result<ProcessStats, Arc<ReaderError>>>,
}

impl Reader for ProcSmaps {
    fn read(&mut self, vms: &VmSet, _: &mut Namespaces, batch: &mut Batch) -> ReadReport {
        self.read_at(self.started.elapsed(), vms, batch)
    }
}

impl ProcSmaps {
    fn new(walkers: Walkers, interval: Duration, context: &ReaderContext) -> Self {
        let patience = match context.purpose {
            Purpose::Serve => Duration::ZERO,
            Purpose::Look => PATIENCE_OF_A_LOOK,
        };
        let (trust, started) = (context.trust.clone(), Instant::now());
        Self { walkers, trust, interval, patience, started, known: HashMap::new() }
    }

    fn read_at(&mut self, now: Duration, vms: &VmSet, batch: &mut Batch) -> ReadReport {
        let mut report = ReadReport::default();
        let start_ticks = |pid| batch.processes.get(&pid).and_then(|process| process.start_ticks);
        let process = |vm: &InstanceInfo| {
            let pid = vm.hypervisor_pid?;
            Some((Process { pid, start_ticks: start_ticks(pid) }, vm.uid))
        };
        let processes: HashMap<Process, Option<u32>> = vms.vms.iter().filter_map(process).collect();
        self.known.retain(|process, _| processes.contains_key(process));
        self.take_answers(now, Duration::ZERO);
        for (process, uid) in processes {
            let known = self.known.entry(process).or_default();
            if !known.under_way && now >= known.due {
                match self.walkers.ask(Question { process, uid, is_trusted: self.trust.is_trusted(uid) }) {
                    Ok(()) => known.under_way = true,
                    Err(error) => report.error(error),
                }
            }
        }
        self.take_answers(now, self.patience);
        for (process, known) in &self.known {
            match &known.last {
                Some(Ok(stats)) => {
                    batch.add_process(process.pid, *stats);
                    report.items += 1;
                }
                Some(Err(error)) => report.error(ReaderError::Earlier(Arc::clone(error))),
                None => {}
            }
        }
        report
    }

    fn take_answers(&mut self, now: Duration, patience: Duration) {
        let until = Instant::now() + patience;
        while self.known.values().any(|known| known.under_way) {
            let Some(Answer { process, result }) =
                self.walkers.answer(until.saturating_duration_since(Instant::now()))
            else {
                return;
            };
            // The process may have ended meanwhile.
            if let Some(known) = self.known.get_mut(&process) {
                let last = result.map_err(Arc::new).transpose();
                *known = Schedule { under_way: false, due: now + self.interval, last };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;
    use vm_metrics_testkit::wait::{Deadline, SOON};

    use super::*;
    use crate::host::Host;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A host with a process 7 that has so much private memory.
    fn host(kibibytes: u64) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("7")).unwrap();
        set(&dir, kibibytes);
        dir
    }

    fn set(dir: &TempDir, kibibytes: u64) {
        let text = format!("Pss: 9 kB\nPrivate_Clean: 0 kB\nPrivate_Dirty: {kibibytes} kB\n");
        fs::write(dir.path().join("7/smaps_rollup"), text).unwrap();
    }

    fn reader(dir: &TempDir, purpose: Purpose) -> ProcSmaps {
        let host = Host::new(dir.path(), "/none");
        let walkers = Walkers::spawn(&host).unwrap();
        ProcSmaps::new(walkers, MINUTE, &ReaderContext::of_test(host, purpose))
    }

    fn vms() -> VmSet {
        VmSet { vms: vec![InstanceInfo { hypervisor_pid: Some(7), uid: Some(0), ..InstanceInfo::default() }] }
    }

    /// Private KiB of the process that has begun then.
    fn read(reader: &mut ProcSmaps, second: u64, start_ticks: u64) -> Option<u64> {
        let mut batch = Batch::default();
        batch.processes.entry(7).or_default().start_ticks = Some(start_ticks);
        reader.read_at(Duration::from_secs(second), &vms(), &mut batch);
        batch.processes[&7].stats.memory_private_bytes.map(|bytes| bytes >> 10)
    }

    #[test]
    fn a_process_is_read_once_an_interval() {
        let dir = host(1);
        let mut reader = reader(&dir, Purpose::Serve);
        let mut deadline = Deadline::after(SOON);
        let mut until = |reader: &mut ProcSmaps, second, start_ticks, wanted| {
            while read(reader, second, start_ticks) != Some(wanted) {
                assert!(!deadline.has_passed());
                std::thread::yield_now();
            }
        };
        until(&mut reader, 0, 1, 1);
        set(&dir, 2);
        for second in 1..60 {
            assert_eq!(read(&mut reader, second, 1), Some(1));
        }
        until(&mut reader, 60, 1, 2);
        set(&dir, 3);
        assert_eq!(read(&mut reader, 61, 1), Some(2));
        until(&mut reader, 61, 2, 3);
    }

    #[test]
    fn every_tick_reports_an_unreadable_process() {
        assert_eq!(read(&mut reader(&host(5), Purpose::Look), 0, 1), Some(5));
        let dir = host(5);
        fs::remove_file(dir.path().join("7/smaps_rollup")).unwrap();
        let mut reader = reader(&dir, Purpose::Look);
        for _ in 0..2 {
            let report = reader.read_at(Duration::ZERO, &vms(), &mut Batch::default());
            let error = report.first_error.unwrap();
            assert!(error.to_string().contains("cannot open"), "{error}");
            assert_eq!((report.items, report.errors, error.errno()), (0, 1, Some(2)));
        }
        let report = reader.read_at(Duration::ZERO, &VmSet::default(), &mut Batch::default());
        assert_eq!((report.errors, reader.known.len()), (0, 0));
    }
}
