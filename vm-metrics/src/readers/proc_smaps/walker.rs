//! The thread that reads `smaps_rollup`: however long the kernel walks through the pages, the tick goes on.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use super::Process;
use crate::host::Host;
use crate::model::{SmapsRollup, VmSet};
use crate::procfs::parse_smaps_rollup;
use crate::readers::ReaderError;
use crate::readers::kept::{Buffer, ProcessFiles};

/// Ends when it is dropped; nobody waits for that.
#[derive(Debug)]
pub struct Walker {
    questions: Sender<Process>,
    answers: Receiver<Answer>,
}

/// `None` when the process is gone.
#[derive(Debug)]
pub struct Answer {
    pub process: Process,
    pub result: Result<Option<SmapsRollup>, ReaderError>,
}

impl Walker {
    pub fn spawn(host: Host) -> io::Result<Self> {
        let (questions, asked) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        thread::Builder::new().name("smaps".to_owned()).spawn(move || run(host, &asked, &answer))?;
        Ok(Self { questions, answers })
    }

    pub fn ask(&self, process: Process) -> Result<(), ReaderError> {
        self.questions.send(process).map_err(|_| ReaderError::ThreadEnded { thread: "smaps" })
    }

    pub fn answer(&self, patience: Duration) -> Option<Answer> {
        self.answers.recv_timeout(patience).ok()
    }
}

fn run(host: Host, asked: &Receiver<Process>, answers: &Sender<Answer>) {
    let mut files = ProcessFiles::new(host, "smaps_rollup");
    let mut buffer = Buffer::new();
    for process in asked {
        let result = files.read(process.pid, &mut buffer, parse_smaps_rollup);
        // Between two readings there is no use for it.
        files.keep_only(&VmSet::default());
        if answers.send(Answer { process, result }).is_err() {
            return;
        }
    }
}
