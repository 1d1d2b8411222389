//! The thread that asks. However long a socket keeps it, the tick goes on.

use std::io;
use std::pin::Pin;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::proc_scan::{Process, executable};
use super::socket::connect;
use super::{AskError, DEADLINE, Facts, Target};
use crate::host::Host;
use crate::model::Hypervisor;

/// How VMMs of one kind are asked, over a connection.
pub type Ask = fn(UnixStream) -> Answering;

pub type Answering = Pin<Box<dyn Future<Output = Result<Facts, AskError>> + Send>>;

/// What came of one question, and the process that answered.
#[derive(Debug)]
pub struct Answer {
    pub target: Target,
    pub result: Result<(Facts, Option<(u32, u64)>), AskError>,
}

/// Ends when it is dropped; nobody waits for that.
#[derive(Debug)]
pub struct Asker {
    questions: Sender<Vec<Target>>,
    answers: Receiver<Answer>,
    thread: JoinHandle<()>,
}

impl Asker {
    pub fn spawn(host: Host, ask: Ask) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (questions, asked) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let run = move || run(&runtime, &host, ask, &asked, &answer);
        let thread = thread::Builder::new().name("vmm-api".to_owned()).spawn(run)?;
        Ok(Self { questions, answers, thread })
    }

    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    pub fn ask(&self, targets: Vec<Target>) {
        // A thread that is gone shows at the next call of `is_running`.
        let _ = self.questions.send(targets);
    }

    pub fn answer(&self, patience: Duration) -> Option<Answer> {
        self.answers.recv_timeout(patience).ok()
    }
}

fn run(runtime: &Runtime, host: &Host, ask: Ask, asked: &Receiver<Vec<Target>>, answers: &Sender<Answer>) {
    for targets in asked {
        runtime.block_on(async {
            let mut under_way = JoinSet::new();
            for target in targets {
                let host = host.clone();
                under_way.spawn(async move {
                    let result = timeout(DEADLINE, one(&host, &target, ask)).await;
                    Answer { target, result: result.unwrap_or(Err(AskError::Late)) }
                });
            }
            while let Some(answer) = under_way.join_next().await {
                if let Ok(answer) = answer {
                    let _ = answers.send(answer);
                }
            }
        });
    }
}

async fn one(host: &Host, target: &Target, ask: Ask) -> Result<(Facts, Option<(u32, u64)>), AskError> {
    let (stream, process) = connect(host, target).await?;
    let mut facts = ask(stream).await?;
    // Who listens may have made the socket for a VMM.
    let is_vmm = |pid| target.process.is_some() || hypervisor(host, pid) == Some(facts.info.hypervisor);
    facts.info.hypervisor_pid = process.map(|(pid, _)| pid).filter(|pid| is_vmm(*pid));
    Ok((facts, process))
}

fn hypervisor(host: &Host, pid: u32) -> Option<Hypervisor> {
    executable::hypervisor(&Process::new(host, pid).executable().ok()??)
}
