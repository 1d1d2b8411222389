//! Asks about processes, and lets users pay for the time of the answers.

use std::sync::Arc;
use std::time::Duration;

use super::ProcScan;
use super::looks::TimePool;
use super::observer::Observer;
use super::queries::{ProcessQuery, ProcessReply};
use crate::patient::Job;

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
