//! Questions about processes, and who pays for the time of the answers.

use std::sync::Arc;
use std::time::Duration;

use super::ProcScan;
use super::inspect::Vm;
use super::kvm::{self, KvmPart};
use super::looks::Pot;
use super::observer::{HeldNics, Observer, QuickFacts, Wanted};
use super::program::Program;
use super::taps::Known;
use crate::patient::Job;
use crate::sources::process::Unread;

/// What is to be read of a process.
#[derive(Debug)]
pub enum Question {
    Quick(Wanted),
    /// With what an earlier look has not finished, as the next ones.
    Vm {
        part: Option<HeldNics>,
        /// What is published of it, so that a look that does not end leaves nothing that it has closed.
        known: Vec<Known>,
    },
    New {
        is_named: bool,
    },
    Holder(Option<HeldNics>),
    /// Which of these the process still holds.
    Held {
        uid: Option<u32>,
        known: Vec<Known>,
    },
    Kvm(Option<KvmPart>),
}

impl Question {
    /// What a known VM holds now.
    pub fn of(vm: &Vm) -> Self {
        Self::Vm { part: vm.part().cloned(), known: vm.known() }
    }
}

/// What a VM's process holds, and what it still holds of what was known.
#[derive(Debug)]
pub struct NowHeld {
    pub nics: HeldNics,
    pub still: Vec<Known>,
}

#[derive(Debug)]
pub enum Answer {
    Quick(QuickFacts),
    Vm(Option<Program>, Result<NowHeld, Unread>),
    Held(Vec<Known>),
    New(Result<Option<Box<Vm>>, Unread>),
    Holder(Option<Box<Vm>>),
    Kvm(Result<kvm::Found, Unread>),
}

/// Reads it.
pub fn answer((observer, pid, question): (Arc<Observer>, u32, Question)) -> Answer {
    match question {
        Question::Quick(wanted) => Answer::Quick(observer.quick(pid, wanted)),
        Question::Vm { part, known } => {
            let (program, held) = observer.vm(pid, part);
            let now = |nics: HeldNics| {
                // A whole look has found all there is.
                let known = if nics.is_part() { known } else { Vec::new() };
                NowHeld { still: observer.still_held(pid, nics.uid, known), nics }
            };
            Answer::Vm(program, held.map(now))
        }
        Question::Held { uid, known } => Answer::Held(observer.still_held(pid, uid, known)),
        Question::New { is_named } => {
            Answer::New(observer.new_process(pid, is_named).map(|vm| vm.map(Box::new)))
        }
        Question::Holder(part) => Answer::Holder(observer.holder(pid, part).map(Box::new)),
        Question::Kvm(part) => Answer::Kvm(observer.kvm(pid, part)),
    }
}

impl ProcScan {
    /// Whether there is time for a look at a process of this user; counts that there is none.
    pub(super) fn has_room(&mut self, uid: Option<u32>, pot: Pot) -> bool {
        let looks = match pot {
            Pot::Vms => &self.looks,
            Pot::Kvm => &self.kvm_looks,
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
        asked: Vec<(u32, Option<u32>, Question)>,
        pot: Pot,
        observer: &Arc<Observer>,
    ) -> Vec<Option<(Answer, Duration)>> {
        let users: Vec<Option<u32>> = asked.iter().map(|(_, uid, _)| *uid).collect();
        let job = |(pid, uid, question): (u32, Option<u32>, Question)| Job {
            pid,
            uid,
            is_trusted: self.trust.is_trusted(uid),
            question: (Arc::clone(observer), pid, question),
        };
        let jobs = asked.into_iter().map(job).collect();
        let replies = self.patient.ask(jobs);
        self.overuse.merge(self.patient.take_overuse());
        let looks = match pot {
            Pot::Vms => &mut self.looks,
            Pot::Kvm => &mut self.kvm_looks,
        };
        for (uid, reply) in users.into_iter().zip(&replies) {
            let is_quick = matches!(reply.answer, Some(Answer::Quick(_)));
            if !is_quick && !self.trust.is_trusted(uid) {
                looks.used(uid, reply.took);
            }
        }
        replies.into_iter().map(|reply| Some((reply.answer?, reply.took))).collect()
    }
}
