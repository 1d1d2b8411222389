//! Threads that read `smaps_rollup`, so that no tick waits for the kernel.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use super::Process;
use crate::host::Host;
use crate::model::ProcessStats;
use crate::patient::{Job, Patient};
use crate::procfs::parse_smaps_rollup;
use crate::readers::ReaderError;
use crate::readers::cached_file::{Buffer, CachedFile};

/// Pause before the next attempt at processes that hang or had no time left.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// The largest VMs take seconds.
const PATIENCE_WITH_TRUSTED: Duration = Duration::from_secs(600);
const PATIENCE_WITH_STRANGERS: Duration = Duration::from_secs(5);

/// A thread for trusted users and one for the others, which delay only their own readings. The threads end after the drop
/// of this, without a wait.
#[derive(Debug)]
pub struct Walkers {
    trusted: Sender<Question>,
    strangers: Sender<Question>,
    answers: Receiver<Answer>,
}

#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub process: Process,
    pub uid: Option<u32>,
    pub is_trusted: bool,
}

/// `None` when the process is gone.
#[derive(Debug)]
pub struct Answer {
    pub process: Process,
    pub result: Result<Option<ProcessStats>, ReaderError>,
}

impl Walkers {
    pub fn spawn(host: &Host) -> io::Result<Self> {
        let (answer, answers) = mpsc::channel();
        let spawn = |patience| {
            let (questions, asked) = mpsc::channel();
            let (host, answer) = (host.clone(), answer.clone());
            thread::Builder::new()
                .name("smaps".to_owned())
                .spawn(move || run(host, patience, &asked, &answer))?;
            Ok::<_, io::Error>(questions)
        };
        let (trusted, strangers) = (spawn(PATIENCE_WITH_TRUSTED)?, spawn(PATIENCE_WITH_STRANGERS)?);
        Ok(Self { trusted, strangers, answers })
    }

    pub fn ask(&self, question: Question) -> Result<(), ReaderError> {
        let walker = if question.is_trusted { &self.trusted } else { &self.strangers };
        walker.send(question).map_err(|_| ReaderError::ThreadEnded { thread: "smaps" })
    }

    pub fn answer(&self, patience: Duration) -> Option<Answer> {
        self.answers.recv_timeout(patience).ok()
    }
}

fn run(host: Host, patience: Duration, asked: &Receiver<Question>, answers: &Sender<Answer>) {
    let mut patient = Patient::new("smaps_rollup", patience, move |pid| read(&host, pid));
    let mut open: Vec<Question> = Vec::new();
    loop {
        match if open.is_empty() { asked.recv().map_err(Into::into) } else { asked.recv_timeout(ASK_AGAIN) } {
            Ok(question) => open.push(question),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        open.extend(asked.try_iter());
        let job = |question: &Question| {
            let Question { process, uid, is_trusted } = *question;
            Job { pid: process.pid, uid, is_trusted, question: process.pid }
        };
        let results = patient.each(open.iter().map(job).collect());
        let mut unanswered = Vec::new();
        for (question, result) in open.into_iter().zip(results) {
            let Some(result) = result else {
                unanswered.push(question);
                continue;
            };
            if answers.send(Answer { process: question.process, result }).is_err() {
                return;
            }
        }
        open = unanswered;
    }
}

fn read(host: &Host, pid: u32) -> Result<Option<ProcessStats>, ReaderError> {
    let Some(file) = CachedFile::open_of(host, pid, "smaps_rollup")? else { return Ok(None) };
    file.read_parsed(&mut Buffer::new(), parse_smaps_rollup)
}
