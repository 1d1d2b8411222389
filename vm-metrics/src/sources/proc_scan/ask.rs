//! Questions about processes, and who pays for the time of the answers.

use std::sync::Arc;
use std::time::Duration;

use super::ProcScan;
use super::inspect::ProcessVm;
use super::kvm::{self, KvmProgress};
use super::looks::TimePool;
use super::observer::{Holdings, Observer, QuickQuery, QuickReading};
use super::program_file::ProgramFile;
use super::taps::DeviceDescriptor;
use crate::patient::Job;
use crate::sources::process::ReadError;

/// A read of one process.
#[derive(Debug)]
pub enum ProcessQuery {
    Quick(QuickQuery),
    /// Like the next ones, it continues an unfinished look.
    Vm {
        progress: Option<Holdings>,
        /// Its published devices: an unfinished look must drop those that it has closed.
        known: Vec<DeviceDescriptor>,
    },
    New {
        is_named: bool,
    },
    Holder(Option<Holdings>),
    /// Which of these the process still holds.
    Held {
        uid: Option<u32>,
        known: Vec<DeviceDescriptor>,
    },
    Kvm(Option<KvmProgress>),
}

impl ProcessQuery {
    /// Asks for the devices of a known VM.
    pub fn of(vm: &ProcessVm) -> Self {
        Self::Vm { progress: vm.progress().cloned(), known: vm.known() }
    }
}

/// The devices of a VM's process, and the known ones that it still holds.
#[derive(Debug)]
pub struct HoldingsUpdate {
    pub nics: Holdings,
    pub still: Vec<DeviceDescriptor>,
}

#[derive(Debug)]
pub enum ProcessReply {
    Quick(QuickReading),
    Vm(Option<ProgramFile>, Result<HoldingsUpdate, ReadError>),
    Held(Vec<DeviceDescriptor>),
    New(Result<Option<Box<ProcessVm>>, ReadError>),
    Holder(Option<Box<ProcessVm>>),
    Kvm(Result<kvm::KvmFinding, ReadError>),
}

/// Reads it.
pub fn answer((observer, pid, question): (Arc<Observer>, u32, ProcessQuery)) -> ProcessReply {
    match question {
        ProcessQuery::Quick(wanted) => ProcessReply::Quick(observer.quick(pid, wanted)),
        ProcessQuery::Vm { progress, known } => {
            let (program, held) = observer.vm(pid, progress);
            let now = |nics: Holdings| {
                // A whole look has found all there is.
                let known = if nics.is_partial() { known } else { Vec::new() };
                HoldingsUpdate { still: observer.still_held(pid, nics.uid, known), nics }
            };
            ProcessReply::Vm(program, held.map(now))
        }
        ProcessQuery::Held { uid, known } => ProcessReply::Held(observer.still_held(pid, uid, known)),
        ProcessQuery::New { is_named } => {
            ProcessReply::New(observer.new_process(pid, is_named).map(|vm| vm.map(Box::new)))
        }
        ProcessQuery::Holder(progress) => ProcessReply::Holder(observer.holder(pid, progress).map(Box::new)),
        ProcessQuery::Kvm(progress) => ProcessReply::Kvm(observer.kvm(pid, progress)),
    }
}

impl ProcScan {
    /// Whether there is time for a look at a process of this user; counts that there is none.
    pub(super) fn has_room(&mut self, uid: Option<u32>, pot: TimePool) -> bool {
        let looks = match pot {
            TimePool::Vms => &self.looks,
            TimePool::Kvm => &self.kvm_looks,
        };
        let has_room = self.trust.is_trusted(uid) || looks.is_room(uid);
        if !has_room {
            self.overuse.add(uid, "processes", 1);
        }
        has_room
    }

    /// Asks each of these processes. `None` for one that does not answer; else how long it took.
    ///
    /// Users who are not trusted pay for close looks, and for the time in which one of theirs did not answer.
    pub(super) fn ask(
        &mut self,
        asked: Vec<(u32, Option<u32>, ProcessQuery)>,
        pot: TimePool,
        observer: &Arc<Observer>,
    ) -> Vec<Option<(ProcessReply, Duration)>> {
        let users: Vec<Option<u32>> = asked.iter().map(|(_, uid, _)| *uid).collect();
        let job = |(pid, uid, question): (u32, Option<u32>, ProcessQuery)| Job {
            pid,
            uid,
            is_trusted: self.trust.is_trusted(uid),
            question: (Arc::clone(observer), pid, question),
        };
        let jobs = asked.into_iter().map(job).collect();
        let replies = self.patient.ask(jobs);
        self.overuse.merge(self.patient.take_overuse());
        let looks = match pot {
            TimePool::Vms => &mut self.looks,
            TimePool::Kvm => &mut self.kvm_looks,
        };
        for (uid, reply) in users.into_iter().zip(&replies) {
            let is_quick = matches!(reply.answer, Some(ProcessReply::Quick(_)));
            if !is_quick && !self.trust.is_trusted(uid) {
                looks.used(uid, reply.took);
            }
        }
        replies.into_iter().map(|reply| Some((reply.answer?, reply.took))).collect()
    }
}
