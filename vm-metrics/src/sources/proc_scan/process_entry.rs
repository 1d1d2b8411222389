//! A process as it was at the last look.

use std::time::Duration;

use super::inspect::ProcessVm;
use super::kvm;
use crate::sources::SourceError;

#[derive(Debug)]
pub struct ProcessEntry {
    /// When the process, or the VM in it, was first seen.
    pub first: Duration,
    /// The user who ran it then.
    pub uid: Option<u32>,
    /// The process from which it had come when it was first seen.
    pub parent: Option<u32>,
    /// For how many calls it has waited for a look.
    pub waits: u64,
    /// When it is looked at for KVM.
    pub kvm: kvm::KvmSchedule,
    pub kind: ProcessKind,
}

#[derive(Debug)]
pub enum ProcessKind {
    NoVm,
    Vm(Box<ProcessVm>),
    Unreadable(SourceError),
}

impl ProcessEntry {
    pub fn new(first: Duration, uid: Option<u32>, parent: Option<u32>, kind: ProcessKind) -> Self {
        Self { first, uid, parent, waits: 0, kvm: kvm::KvmSchedule::new(first), kind }
    }

    /// It has waited for one more call.
    pub fn waiting(self) -> Self {
        Self { waits: self.waits + 1, ..self }
    }

    pub fn vm(&self) -> Option<&ProcessVm> {
        match &self.kind {
            ProcessKind::Vm(vm) => Some(vm),
            ProcessKind::NoVm | ProcessKind::Unreadable(_) => None,
        }
    }

    pub fn vm_mut(&mut self) -> Option<&mut ProcessVm> {
        match &mut self.kind {
            ProcessKind::Vm(vm) => Some(vm),
            ProcessKind::NoVm | ProcessKind::Unreadable(_) => None,
        }
    }
}
