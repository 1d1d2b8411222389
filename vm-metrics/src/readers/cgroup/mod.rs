//! Reader `cgroup`: CPU limit, pressure, memory and OOM kills of control groups (v2).
//!
//! The numbers are the kernel's, of the whole group. A group that also has another VM or the daemon is omitted. The files
//! are opened for each reading, which costs ten times as much as reading them. So a group is read once in an interval.

mod alone;
mod group;
mod mount;
mod stitched;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::alone::alone;
use self::group::{Place, Reading, look, place};
use self::mount::Mount;
use self::stitched::Stitched;
use super::interval::interval;
use super::{ReadReport, Reader, ReaderContext, ReaderDef, ReaderError, StartOutcome};
use crate::host::Host;
use crate::model::{Batch, CgroupStats, ComponentHealth, Health, InstanceInfo, Trust, VmSet};
use crate::net::namespaces::Namespaces;
use crate::patient::{Job, Patient};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);

/// Time limit of a tick's wait for one process.
const PATIENCE: Duration = Duration::from_millis(100);

/// Parts of the interval in which groups are read, by the number of the process.
const TURNS: u32 = 16;

pub(crate) const READER: ReaderDef = ReaderDef {
    name: "cgroup",
    configure: |section| {
        let interval = interval(section, DEFAULT_INTERVAL)?;
        Ok(Box::new(move |context| match Mount::find(&context.host) {
            Ok(mount) => StartOutcome::Running(Box::new(Cgroup::new(context, mount, interval))),
            Err(reason) => StartOutcome::Not(ComponentHealth::new(Health::Unsupported, reason)),
        }))
    },
};

/// A process, and its last group if that one is read.
type Question = (u32, Option<PathBuf>);

/// `None` when process or group is gone.
type Answer = Result<Option<GroupReading>, ReaderError>;

enum GroupReading {
    Outside,
    Root,
    Group(Box<Reading>),
}

#[derive(Debug)]
struct Cgroup {
    host: Host,
    mount: Arc<Mount>,
    trust: Trust,
    interval: Duration,
    started: Instant,
    patient: Patient<Question, Answer>,
    known: HashMap<u32, ProcessGroup>,
    /// The processes of this tick.
    wanted: HashSet<u32>,
}

/// A process of a VM.
#[derive(Debug, Default)]
struct ProcessGroup {
    /// Identifies the process, with the pid.
    start_ticks: Option<u64>,
    /// The time of the next reading.
    due: Duration,
    group: Option<Reading>,
    /// Whether the reading of the group is not yet published.
    is_fresh: bool,
    /// Another VM was in the group when it was read.
    is_shared: bool,
    stitched: Stitched,
    published: Option<CgroupStats>,
    problem: Option<Arc<ReaderError>>,
}

impl Reader for Cgroup {
    fn read(&mut self, vms: &VmSet, _: &mut Namespaces, batch: &mut Batch) -> ReadReport {
        self.read_at(self.started.elapsed(), vms, batch)
    }

    /// The kernel may have killed it: its group may exist for a moment longer.
    fn read_final(&mut self, removals: &VmSet, _: &mut Namespaces, batch: &mut Batch) {
        let groups = removals.vms.iter().filter_map(|vm| {
            let group = self.known.get(&vm.hypervisor_pid?)?.group.as_ref()?;
            Some((vm, Some(group.path.clone())))
        });
        let asked: Vec<(&InstanceInfo, Option<PathBuf>)> = groups.collect();
        let answers = self.ask(&asked);
        for ((vm, _), answer) in asked.iter().zip(answers) {
            let known = vm.hypervisor_pid.and_then(|pid| Some((pid, self.known.get_mut(&pid)?)));
            if let Some((pid, known)) = known
                && let Some(Ok(Some(GroupReading::Group(reading)))) = answer
                && known.published.is_some()
                && known.group.as_ref().is_some_and(|group| group.id == reading.id)
            {
                known.group = Some(*reading);
                known.publish();
                batch.removed_processes.entry(pid).or_default().cgroup = known.published;
            }
        }
        let wanted = &self.wanted;
        self.known.retain(|pid, _| wanted.contains(pid));
    }
}

impl Cgroup {
    fn new(context: &ReaderContext, mount: Mount, interval: Duration) -> Self {
        let mount = Arc::new(mount);
        let (host, of_thread) = (context.host.clone(), Arc::clone(&mount));
        let read = move |question| answer(&host, &of_thread, question);
        Self {
            host: context.host.clone(),
            mount,
            trust: context.trust.clone(),
            interval,
            started: Instant::now(),
            patient: Patient::new("cgroup", PATIENCE, read),
            known: HashMap::new(),
            wanted: HashSet::new(),
        }
    }

    fn read_at(&mut self, now: Duration, vms: &VmSet, batch: &mut Batch) -> ReadReport {
        let mut report = ReadReport::default();
        self.wanted = vms.pids().collect();
        let due: Vec<_> =
            vms.vms.iter().filter(|vm| self.is_due(vm, now, batch)).map(|vm| (vm, None)).collect();
        let answers = self.ask(&due);
        report.overuse.merge(self.patient.take_overuse());
        for ((vm, _), answer) in due.iter().zip(answers) {
            let known = vm.hypervisor_pid.and_then(|pid| Some((pid, self.known.get_mut(&pid)?)));
            if let (Some((pid, known)), Some(answer)) = (known, answer) {
                known.take(pid, answer, &self.wanted);
            }
        }
        self.publish(batch, &mut report);
        report
    }

    /// Sets the time at which the group is due again. Groups have turns, so that no tick has all of them.
    fn is_due(&mut self, vm: &InstanceInfo, now: Duration, batch: &Batch) -> bool {
        let Some(pid) = vm.hypervisor_pid else { return false };
        let start_ticks = batch.processes.get(&pid).and_then(|process| process.start_ticks);
        let known = self.known.entry(pid).or_default();
        if known.start_ticks.zip(start_ticks).is_some_and(|(before, now)| before != now) {
            *known = ProcessGroup::default();
        }
        known.start_ticks = start_ticks.or(known.start_ticks);
        if now < known.due {
            return false;
        }
        let is_first = known.due.is_zero();
        known.due = now + if is_first { self.interval * (pid % TURNS + 1) / TURNS } else { self.interval };
        true
    }

    fn ask(&mut self, vms: &[(&InstanceInfo, Option<PathBuf>)]) -> Vec<Option<Answer>> {
        let job = |(vm, group): &(&InstanceInfo, Option<PathBuf>)| {
            let (pid, is_trusted) = (vm.hypervisor_pid?, self.trust.is_trusted(vm.uid));
            Some(Job { pid, uid: vm.uid, is_trusted, question: (pid, group.clone()) })
        };
        let jobs = vms.iter().filter_map(job).collect();
        self.patient.each(jobs)
    }

    fn publish(&mut self, batch: &mut Batch, report: &mut ReadReport) {
        let own = place(&self.mount, &self.host.process_itself());
        let own = own.ok().flatten().and_then(|own| match own {
            Place::Group(path) => Some(path),
            Place::Outside => None,
        });
        let groups =
            self.known.iter().filter_map(|(pid, known)| Some((known.group.as_ref()?.path.as_path(), *pid)));
        let members =
            groups.filter(|(_, pid)| self.wanted.contains(pid)).map(|(group, pid)| (group, Some(pid)));
        let alone = alone(members.chain(own.as_deref().map(|own| (own, None))).collect());
        for (pid, known) in self.known.iter_mut().filter(|(pid, _)| self.wanted.contains(pid)) {
            match known.group {
                Some(_) if known.is_shared || !alone.contains(pid) => known.pause(),
                Some(_) if known.is_fresh => known.publish(),
                _ => {}
            }
            if known.published.is_some() {
                batch.processes.entry(*pid).or_default().cgroup = known.published;
                report.items += 1;
            }
            if let Some(problem) = &known.problem {
                report.error(ReaderError::Earlier(Arc::clone(problem)));
            }
        }
    }
}

impl ProcessGroup {
    fn take(&mut self, pid: u32, answer: Answer, vms: &HashSet<u32>) {
        self.problem = None;
        self.is_fresh = false;
        match answer {
            Ok(Some(GroupReading::Group(mut reading))) => {
                let members = reading.members.take();
                let is_other = |member: &u32| *member != pid && vms.contains(member);
                self.is_shared = members.is_none_or(|members| members.iter().any(is_other));
                (self.group, self.is_fresh) = (Some(*reading), true);
            }
            Ok(Some(GroupReading::Root)) => (self.group, self.published) = (None, None),
            Ok(Some(GroupReading::Outside)) => {
                (self.group, self.published) = (None, None);
                self.problem = Some(Arc::new(ReaderError::HiddenGroup { pid }));
            }
            // It has ended: the known numbers are its final ones.
            Ok(None) => {}
            Err(error) => self.problem = Some(Arc::new(error)),
        }
    }

    fn publish(&mut self) {
        self.is_fresh = false;
        if let Some(Reading { id, stats, .. }) = &self.group {
            let counters = self.stitched.step(*id, stats.counters());
            self.published = Some(stats.with_counters(counters));
        }
    }

    /// Another VM is in the group, too.
    fn pause(&mut self) {
        (self.is_fresh, self.published) = (false, None);
        self.stitched.pause();
    }
}

fn answer(host: &Host, mount: &Mount, (pid, group): Question) -> Answer {
    let group = match group {
        Some(group) => group,
        None => match place(mount, &host.process(pid))? {
            None => return Ok(None),
            Some(Place::Outside) => return Ok(Some(GroupReading::Outside)),
            Some(Place::Group(group)) => group,
        },
    };
    if group.as_os_str().is_empty() {
        return Ok(Some(GroupReading::Root));
    }
    Ok(look(mount, group)?.map(|reading| GroupReading::Group(Box::new(reading))))
}

#[cfg(test)]
mod tests;
