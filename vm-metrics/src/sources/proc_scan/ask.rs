//! Asks about processes, and lets users pay for the time of the answers.

use std::sync::Arc;
use std::time::Duration;

use super::ProcScan;
use super::looks::TimePool;
use super::queries::{ProcessQuery, ProcessReply};
use super::scan::Scan;
use crate::patient::Job;

/// The answer about one process.
#[derive(Debug)]
pub struct Answer {
    pub pid: u32,
    pub uid: Option<u32>,
    /// `None` where the process does not answer.
    pub reply: Option<ProcessReply>,
    pub took: Duration,
}

impl ProcScan {
    /// Whether there is time for a look at a process of this user; counts that there is none.
    pub(super) fn has_room(&mut self, uid: Option<u32>, pool: TimePool) -> bool {
        let has_room = self.trust.is_trusted(uid) || self.looks_of(pool).is_room(uid);
        if !has_room {
            self.overuse.add(uid, "processes", 1);
        }
        has_room
    }

    /// Asks each of these processes. The answers have the same order.
    ///
    /// Users who are not trusted pay for close looks, and for the time in which one of theirs did not answer.
    pub(super) fn ask(
        &mut self,
        asked: Vec<(u32, Option<u32>, ProcessQuery)>,
        pool: TimePool,
        scan: &Scan,
    ) -> Vec<Answer> {
        let subjects: Vec<(u32, Option<u32>)> = asked.iter().map(|(pid, uid, _)| (*pid, *uid)).collect();
        let job = |(pid, uid, question): (u32, Option<u32>, ProcessQuery)| Job {
            pid,
            uid,
            is_trusted: self.trust.is_trusted(uid),
            question: (Arc::clone(&scan.observer), pid, question),
        };
        let jobs = asked.into_iter().map(job).collect();
        let replies = self.patient.ask(jobs);
        self.overuse.merge(self.patient.take_overuse());
        let mut answers = Vec::new();
        for ((pid, uid), reply) in subjects.into_iter().zip(replies) {
            let is_quick = matches!(reply.answer, Some(ProcessReply::Quick(_)));
            if !is_quick && !self.trust.is_trusted(uid) {
                self.looks_of(pool).used(uid, reply.took);
            }
            answers.push(Answer { pid, uid, reply: reply.answer, took: reply.took });
        }
        answers
    }

    /// The same of one process.
    pub(super) fn ask_one(
        &mut self,
        (pid, uid): (u32, Option<u32>),
        question: ProcessQuery,
        pool: TimePool,
        scan: &Scan,
    ) -> Option<ProcessReply> {
        self.ask(vec![(pid, uid, question)], pool, scan).pop()?.reply
    }
}
