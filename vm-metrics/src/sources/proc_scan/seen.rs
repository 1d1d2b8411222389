//! A process as it was at the last look.

use std::time::Duration;

use super::inspect::Vm;
use super::kvm;
use crate::sources::SourceError;

#[derive(Debug)]
pub struct Seen {
    /// When the process, or the VM in it, was first seen.
    pub first: Duration,
    /// The user who ran it then.
    pub uid: Option<u32>,
    /// The process from which it had come when it was first seen.
    pub parent: Option<u32>,
    /// For how many calls it has waited for a look.
    pub waits: u64,
    /// When it is looked at for KVM.
    pub kvm: kvm::Watch,
    pub what: What,
}

#[derive(Debug)]
pub enum What {
    NoVm,
    Vm(Box<Vm>),
    Unreadable(SourceError),
}

impl Seen {
    pub fn new(first: Duration, uid: Option<u32>, parent: Option<u32>, what: What) -> Self {
        Self { first, uid, parent, waits: 0, kvm: kvm::Watch::new(first), what }
    }

    pub fn vm(&self) -> Option<&Vm> {
        match &self.what {
            What::Vm(vm) => Some(vm),
            What::NoVm | What::Unreadable(_) => None,
        }
    }
}
