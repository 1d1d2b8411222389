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
    Kvm(Result<KvmFinding, ReadError>),
}

/// Reads it.
pub fn answer((observer, pid, question): (Arc<Observer>, u32, ProcessQuery)) -> ProcessReply {
    let (observer, process) = (&*observer, ProcessDir::new(&observer.host, pid));
    match question {
        ProcessQuery::Quick(wanted) => ProcessReply::Quick(quick(&process, wanted)),
        ProcessQuery::Vm { progress, known } => {
            let program = ProgramFile::of(&process);
            let now = |nics: Holdings| {
                // A whole look has found all there is.
                let known = if nics.is_partial() { known } else { Vec::new() };
                HoldingsUpdate { still: still_held(&process, nics.uid, &observer.devices, known), nics }
            };
            ProcessReply::Vm(program, Holdings::read(&process, observer, progress).map(now))
        }
        ProcessQuery::Held { uid, known } => {
            ProcessReply::Held(still_held(&process, uid, &observer.devices, known))
        }
        ProcessQuery::New { is_named } => {
            ProcessReply::New(new_process(&process, observer, is_named).map(|vm| vm.map(Box::new)))
        }
        ProcessQuery::Holder(progress) => {
            ProcessReply::New(ProcessVm::holder(&process, observer, progress).map(|vm| Some(Box::new(vm))))
        }
        ProcessQuery::Kvm(progress) => ProcessReply::Kvm(kvm::look(&process, observer, progress)),
    }
}

fn quick(process: &ProcessDir, wanted: QuickQuery) -> QuickReading {
    let program = matches!(wanted, QuickQuery::Program | QuickQuery::Origin).then(|| process.executable());
    let stat = matches!(wanted, QuickQuery::Same | QuickQuery::Origin).then(|| process.stat());
    let descriptors = if wanted == QuickQuery::Same { process.descriptor_count() } else { None };
    QuickReading { stat, descriptors, program }
}

/// Whether a process is a VM. A process that another source names counts as a holder of devices.
fn new_process(
    process: &ProcessDir,
    observer: &Observer,
    is_named: bool,
) -> Result<Option<ProcessVm>, ReadError> {
    match inspect(process, observer) {
        Ok(None) if is_named && let Ok(KvmFinding::Vm(vm, true)) = kvm::look(process, observer, None) => {
            Ok(Some(*vm))
        }
        Ok(None) if is_named => ProcessVm::holder(process, observer, None).map(|vm| Some(vm.unlisted())),
        found => found,
    }
}
