//! What is read of processes, apart from what is made of it: a read of a tenant's process may never return.

use std::io;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::devices::Devices;
use super::inspect::{Vm, inspect};
use super::kvm::{self, Found, KvmPart};
use super::program::Program;
use super::taps::{Known, Taps, still_held, taps};
use super::{PATIENCE, SourceError};
use crate::host::Host;
use crate::model::Trust;
use crate::procfs::Stat;
use crate::sources::process::{Process, Unread};

/// With what the processes are read in one call.
#[derive(Debug)]
pub struct Observer {
    pub host: Host,
    pub trust: Trust,
    pub devices: Devices,
    pub pace: Pace,
    /// How many processes of hypervisors are no VMs because `[trust]` does not name their users.
    pub shut_out: AtomicUsize,
}

/// How long one look goes through the descriptors of a process before the rest waits for the next tick.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub trusted: Duration,
    pub others: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { trusted: PATIENCE / 4, others: PATIENCE / 20 }
    }
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
#[derive(Clone, Debug)]
pub struct HeldNics {
    start_ticks: u64,
    /// When the look began.
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

    /// What a VM's process runs and holds now. `part` is what an earlier look has not finished.
    pub fn vm(&self, pid: u32, part: Option<HeldNics>) -> (Option<Program>, Result<HeldNics, Unread>) {
        let process = Process::new(&self.host, pid);
        (Program::of(&process), HeldNics::read(&process, self, part))
    }

    /// Those of the devices that the process still holds under the same descriptors.
    pub fn still_held(&self, pid: u32, uid: Option<u32>, known: Vec<Known>) -> Vec<Known> {
        still_held(&Process::new(&self.host, pid), uid, &self.devices, known)
    }

    /// Whether a process is a VM. One that another source names counts for what it holds.
    pub fn new_process(&self, pid: u32, is_named: bool) -> Result<Option<Vm>, Unread> {
        let process = Process::new(&self.host, pid);
        match inspect(&process, self) {
            Ok(None) if is_named && let Ok(Found::Vm(vm, true)) = kvm::look(&process, self, None) => {
                Ok(Some(*vm))
            }
            Ok(None) if is_named => Vm::holder(&process, self, None).map(|vm| Some(vm.unlisted())),
            found => found,
        }
    }

    /// Whether a process is a VM by what it holds of KVM.
    pub fn kvm(&self, pid: u32, part: Option<KvmPart>) -> Result<Found, Unread> {
        kvm::look(&Process::new(&self.host, pid), self, part)
    }

    /// A process that may hold devices of a VM.
    pub fn holder(&self, pid: u32, part: Option<HeldNics>) -> Option<Vm> {
        Vm::holder(&Process::new(&self.host, pid), self, part).ok()
    }

    /// How long a look goes through the descriptors of a process of this user.
    pub fn time(&self, uid: Option<u32>) -> Duration {
        if self.trust.is_trusted(uid) { self.pace.trusted } else { self.pace.others }
    }
}

impl HeldNics {
    /// Goes on with `part`, where that is of the same process and user.
    pub fn read(process: &Process, observer: &Observer, part: Option<Self>) -> Result<Self, Unread> {
        let uid = process.uid();
        let start_ticks = process.stat()?.start_ticks;
        let part = part.filter(|part| part.start_ticks == start_ticks && part.uid == uid);
        let descriptors = part.as_ref().map_or_else(|| process.descriptor_count(), |part| part.descriptors);
        let before = part.and_then(|part| part.taps.ok());
        let taps = match taps(process, uid, &observer.devices, before, observer.time(uid)) {
            Ok(taps) => Ok(taps),
            Err(Unread::Failed(error)) if error.io_kind() == Some(io::ErrorKind::PermissionDenied) => {
                Err(error)
            }
            Err(unread) => return Err(unread),
        };
        Ok(Self { start_ticks, descriptors, uid, taps })
    }

    /// Whether the look at its descriptors has not ended.
    pub fn is_part(&self) -> bool {
        self.taps.as_ref().is_ok_and(|taps| taps.rest.is_some())
    }
}
