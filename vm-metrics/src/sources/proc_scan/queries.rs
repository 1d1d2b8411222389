//! Reads processes on threads that may hang, apart from all decisions.

use std::sync::Arc;

use super::holdings::{Holdings, HoldingsUpdate};
use super::inspect::{ProcessVm, inspect};
use super::kvm::{self, KvmFinding, KvmProgress};
use super::observer::Observer;
use super::program_file::ProgramFile;
use super::taps::{DeviceDescriptor, still_held};
use crate::procfs::Stat;
use crate::sources::process::{ProcessDir, ReadError};

/// A question that takes a few microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuickQuery {
    /// Whether it is still the same process, with as many descriptors.
    Same,
    /// Which program it runs.
    Program,
    /// The same, and from which process it has come.
    Origin,
}

/// The answer to [`QuickQuery`].
#[derive(Debug, Default)]
pub struct QuickReading {
    pub stat: Option<Result<Stat, ReadError>>,
    pub descriptors: Option<u64>,
    /// The file name of its program.
    pub program: Option<Result<Option<String>, ReadError>>,
}

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

#[derive(Debug)]
pub enum ProcessReply {
    Quick(QuickReading),
    Vm(Option<ProgramFile>, Result<HoldingsUpdate, ReadError>),
    Held(Vec<DeviceDescriptor>),
    New(Result<Option<Box<ProcessVm>>, ReadError>),
    Holder(Option<Box<ProcessVm>>),
    Kvm(Result<KvmFinding, ReadError>),
}

/// Reads it.
pub fn answer((observer, pid, question): (Arc<Observer>, u32, ProcessQuery)) -> ProcessReply {
    match question {
        ProcessQuery::Quick(wanted) => ProcessReply::Quick(quick(&observer, pid, wanted)),
        ProcessQuery::Vm { progress, known } => {
            let (program, holdings) = vm(&observer, pid, progress);
            let now = |nics: Holdings| {
                // A whole look has found all there is.
                let known = if nics.is_partial() { known } else { Vec::new() };
                HoldingsUpdate { still: held(&observer, pid, nics.uid, known), nics }
            };
            ProcessReply::Vm(program, holdings.map(now))
        }
        ProcessQuery::Held { uid, known } => ProcessReply::Held(held(&observer, pid, uid, known)),
        ProcessQuery::New { is_named } => {
            ProcessReply::New(new_process(&observer, pid, is_named).map(|vm| vm.map(Box::new)))
        }
        ProcessQuery::Holder(progress) => {
            ProcessReply::Holder(holder(&observer, pid, progress).map(Box::new))
        }
        ProcessQuery::Kvm(progress) => ProcessReply::Kvm(kvm_finding(&observer, pid, progress)),
    }
}

fn quick(observer: &Observer, pid: u32, wanted: QuickQuery) -> QuickReading {
    let process = ProcessDir::new(&observer.host, pid);
    match wanted {
        QuickQuery::Same => QuickReading {
            stat: Some(process.stat()),
            descriptors: process.descriptor_count(),
            program: None,
        },
        QuickQuery::Program => {
            QuickReading { program: Some(process.executable()), ..QuickReading::default() }
        }
        QuickQuery::Origin => {
            let program = Some(process.executable());
            QuickReading { stat: Some(process.stat()), program, ..QuickReading::default() }
        }
    }
}

/// The program and the devices of a VM's process. `progress` continues an unfinished look.
fn vm(
    observer: &Observer,
    pid: u32,
    progress: Option<Holdings>,
) -> (Option<ProgramFile>, Result<Holdings, ReadError>) {
    let process = ProcessDir::new(&observer.host, pid);
    (ProgramFile::of(&process), Holdings::read(&process, observer, progress))
}

/// Those of the devices that the process still holds under the same descriptors.
fn held(
    observer: &Observer,
    pid: u32,
    uid: Option<u32>,
    known: Vec<DeviceDescriptor>,
) -> Vec<DeviceDescriptor> {
    still_held(&ProcessDir::new(&observer.host, pid), uid, &observer.devices, known)
}

/// Whether a process is a VM. A process that another source names counts as a holder of devices.
fn new_process(observer: &Observer, pid: u32, is_named: bool) -> Result<Option<ProcessVm>, ReadError> {
    let process = ProcessDir::new(&observer.host, pid);
    match inspect(&process, observer) {
        Ok(None) if is_named && let Ok(KvmFinding::Vm(vm, true)) = kvm::look(&process, observer, None) => {
            Ok(Some(*vm))
        }
        Ok(None) if is_named => ProcessVm::holder(&process, observer, None).map(|vm| Some(vm.unlisted())),
        found => found,
    }
}

/// Whether a process is a VM by its KVM descriptors.
fn kvm_finding(
    observer: &Observer,
    pid: u32,
    progress: Option<KvmProgress>,
) -> Result<KvmFinding, ReadError> {
    kvm::look(&ProcessDir::new(&observer.host, pid), observer, progress)
}

/// A process that may hold devices of a VM.
fn holder(observer: &Observer, pid: u32, progress: Option<Holdings>) -> Option<ProcessVm> {
    ProcessVm::holder(&ProcessDir::new(&observer.host, pid), observer, progress).ok()
}
