//! Reads the start of a process and its kind of hypervisor, once.

use std::fs;
use std::time::Duration;

use crate::host::Host;
use crate::model::Hypervisor;
use crate::patient::{Job, Patient};
use crate::procfs::executable;
use crate::procfs::parse_stat;

/// How long a process may take to answer.
const PATIENCE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Facts(Patient<(Host, u32), ProcessFacts>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProcessFacts {
    /// In clock ticks since boot.
    pub(super) start_ticks: Option<u64>,
    /// By the name of its program.
    pub(super) hypervisor: Hypervisor,
}

impl Facts {
    pub(super) fn new() -> Self {
        Self(Patient::new("thread-facts", PATIENCE, read))
    }

    /// `None` where the process does not answer.
    pub(super) fn of(
        &mut self,
        host: &Host,
        pid: u32,
        uid: Option<u32>,
        is_trusted: bool,
    ) -> Option<ProcessFacts> {
        self.0.each(vec![Job { pid, uid, is_trusted, question: (host.clone(), pid) }]).pop().flatten()
    }
}

pub(super) fn read((host, pid): (Host, u32)) -> ProcessFacts {
    let process = host.process(pid);
    let stat = fs::read(process.join("stat")).ok();
    let start_ticks = stat.and_then(|stat| parse_stat(&stat).ok()).map(|stat| stat.start_ticks);
    let program = fs::read_link(process.join("exe")).ok();
    let name = program.as_ref().and_then(|program| program.to_str()).map(executable::file_name);
    ProcessFacts { start_ticks, hypervisor: name.and_then(executable::hypervisor).unwrap_or_default() }
}
