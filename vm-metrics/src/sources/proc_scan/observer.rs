//! What is read of processes, apart from what is made of it: a read of a tenant's process may never return.

use std::io;

use super::devices::Devices;
use super::inspect::{Vm, inspect};
use super::kvm::{self, Found};
use super::process::{Process, Unread};
use super::program::Program;
use super::taps::{Taps, taps};
use crate::host::Host;
use crate::model::Trust;
use crate::procfs::Stat;
use crate::sources::SourceError;

/// With what the processes are read in one call.
#[derive(Debug)]
pub struct Observer {
    pub host: Host,
    pub trust: Trust,
    pub devices: Devices,
}

/// What is to be known of a process in a few microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Whether it is still the same process, with as many descriptors.
    Same,
    /// Which program it runs.
    Program,
    /// The same, and from which process it has come.
    Origin,
}

/// The answer to [`Wanted`].
#[derive(Debug, Default)]
pub struct QuickFacts {
    pub stat: Option<Result<Stat, Unread>>,
    pub descriptors: Option<u64>,
    /// The file name of its program.
    pub program: Option<Result<Option<String>, Unread>>,
}

/// What a process holds.
#[derive(Debug)]
pub struct HeldNics {
    pub descriptors: Option<u64>,
    pub uid: Option<u32>,
    /// An error where this daemon may not know it.
    pub taps: Result<Taps, SourceError>,
}

impl Observer {
    pub fn quick(&self, pid: u32, wanted: Wanted) -> QuickFacts {
        let process = Process::new(&self.host, pid);
        match wanted {
            Wanted::Same => QuickFacts {
                stat: Some(process.stat()),
                descriptors: process.descriptor_count(),
                program: None,
            },
            Wanted::Program => QuickFacts { program: Some(process.executable()), ..QuickFacts::default() },
            Wanted::Origin => {
                let program = Some(process.executable());
                QuickFacts { stat: Some(process.stat()), program, ..QuickFacts::default() }
            }
        }
    }

    /// What a VM's process runs and holds now.
    pub fn vm(&self, pid: u32) -> (Option<Program>, Result<HeldNics, Unread>) {
        let process = Process::new(&self.host, pid);
        (Program::of(&process), HeldNics::read(&process, self))
    }

    /// Whether a process is a VM. One that another source names counts for what it holds.
    pub fn new_process(&self, pid: u32, is_named: bool) -> Result<Option<Vm>, Unread> {
        let process = Process::new(&self.host, pid);
        match inspect(&process, self) {
            Ok(None) if is_named && let Ok(Found::Vm(vm, true)) = kvm::look(&process, self) => Ok(Some(*vm)),
            Ok(None) if is_named => Vm::holder(&process, self).map(|vm| Some(vm.unlisted())),
            found => found,
        }
    }

    /// Whether a process is a VM by what it holds of KVM.
    pub fn kvm(&self, pid: u32) -> Result<Found, Unread> {
        kvm::look(&Process::new(&self.host, pid), self)
    }

    /// A process that may hold devices of a VM.
    pub fn holder(&self, pid: u32) -> Option<Vm> {
        Vm::holder(&Process::new(&self.host, pid), self).ok()
    }
}

impl HeldNics {
    pub fn read(process: &Process, observer: &Observer) -> Result<Self, Unread> {
        let descriptors = process.descriptor_count();
        let uid = process.uid();
        let taps = match taps(process, uid, &observer.devices) {
            Ok(taps) => Ok(taps),
            Err(Unread::Failed(error)) if error.io_kind() == Some(io::ErrorKind::PermissionDenied) => {
                Err(error)
            }
            Err(unread) => return Err(unread),
        };
        Ok(Self { descriptors, uid, taps })
    }
}
