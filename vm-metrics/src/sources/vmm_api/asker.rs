//! The thread that asks. However long a socket keeps it, the tick goes on.

use std::io;
use std::pin::Pin;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::socket::{connect_to_path, connect_to_process};
use super::{AskError, DEADLINE, Facts, Target};
use crate::host::Host;
use crate::model::Hypervisor;
use crate::sources::files::operators::Operators;
use crate::sources::files::process_path::{ProcessPath, Workers};
use crate::sources::process::{Process, executable};

/// How VMMs of one kind are asked, over a connection.
pub type Ask = fn(UnixStream) -> Answering;

pub type Answering = Pin<Box<dyn Future<Output = Result<Facts, AskError>> + Send>>;

/// Whom to ask, and the user of that process.
pub type Question = (Target, Option<u32>);

/// What came of one question, and the process that answered.
#[derive(Debug)]
pub struct Answer {
    pub target: Target,
    pub result: Result<(Facts, Option<(u32, u64)>), AskError>,
}

/// Ends when it is dropped; nobody waits for that.
#[derive(Debug)]
pub struct Asker {
    questions: UnboundedSender<Vec<Question>>,
    answers: Receiver<Answer>,
    thread: JoinHandle<()>,
}

impl Asker {
    pub fn spawn(host: Host, workers: Workers, ask: Ask) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (questions, asked) = unbounded_channel();
        let (answer, answers) = mpsc::channel();
        let asking = Asking { host, operators: workers.operators(), workers, ask };
        let run = move || runtime.block_on(run(asking, asked, answer));
        let thread = thread::Builder::new().name("vmm-api".to_owned()).spawn(run)?;
        Ok(Self { questions, answers, thread })
    }

    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    pub fn ask(&self, questions: Vec<Question>) {
        // A thread that is gone shows at the next call of `is_running`.
        let _ = self.questions.send(questions);
    }

    pub fn answer(&self, patience: Duration) -> Option<Answer> {
        self.answers.recv_timeout(patience).ok()
    }
}

/// A socket that hangs delays no other: new questions are taken while answers are under way.
async fn run(asking: Asking, mut asked: UnboundedReceiver<Vec<Question>>, answers: Sender<Answer>) {
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            questions = asked.recv() => {
                let Some(questions) = questions else { return };
                for (target, uid) in questions {
                    let asking = asking.clone();
                    under_way.spawn(async move {
                        let result = asking.one(&target, uid).await;
                        Answer { target, result }
                    });
                }
            }
            Some(Ok(answer)) = under_way.join_next() => {
                let _ = answers.send(answer);
            }
        }
    }
}

#[derive(Clone)]
struct Asking {
    host: Host,
    operators: Operators,
    workers: Workers,
    ask: Ask,
}

impl Asking {
    /// The connection, and the process that listens at its other end.
    async fn connect(
        &self,
        target: &Target,
        uid: Option<u32>,
    ) -> Result<(UnixStream, Option<(u32, u64)>), AskError> {
        let Some((pid, start_ticks)) = target.process else {
            return connect_to_path(&self.host, &self.operators, &target.path).await;
        };
        let socket = ProcessPath { host: self.host.clone(), pid, start_ticks, path: target.path.clone() };
        let stream = connect_to_process(&self.workers, socket, uid).await?;
        Ok((stream, Some((pid, start_ticks))))
    }

    async fn one(&self, target: &Target, uid: Option<u32>) -> Result<(Facts, Option<(u32, u64)>), AskError> {
        let until = Instant::now() + DEADLINE;
        let connected = timeout_at(until, self.connect(target, uid)).await;
        // That a path leads to a file system that hangs is not told either.
        let late = if target.process.is_some() { AskError::Unusable } else { AskError::Late };
        let (stream, process) = connected.unwrap_or(Err(late))?;
        let mut facts = timeout_at(until, (self.ask)(stream)).await.unwrap_or(Err(AskError::Late))?;
        // Who listens may have made the socket for a VMM.
        let is_vmm =
            |pid| target.process.is_some() || hypervisor(&self.host, pid) == Some(facts.info.hypervisor);
        facts.info.hypervisor_pid = process.map(|(pid, _)| pid).filter(|pid| is_vmm(*pid));
        Ok((facts, process))
    }
}

fn hypervisor(host: &Host, pid: u32) -> Option<Hypervisor> {
    executable::hypervisor(&Process::new(host, pid).executable().ok()??)
}
