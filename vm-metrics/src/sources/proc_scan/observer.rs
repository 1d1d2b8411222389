//! Reads processes on threads that may hang, apart from all decisions.

use std::io;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::devices::Devices;
use super::inspect::{ProcessVm, inspect};
use super::kvm::{self, KvmFinding, KvmProgress};
use super::program_file::ProgramFile;
use super::taps::{DeviceDescriptor, Taps, still_held, taps};
use super::{PATIENCE, SourceError};
use crate::host::Host;
use crate::model::Trust;
use crate::procfs::Stat;
use crate::sources::process::{ProcessDir, ReadError};

/// Everything that the reads of one scan need.
#[derive(Debug)]
pub struct Observer {
    pub host: Host,
    pub trust: Trust,
    pub devices: Devices,
    pub pace: WalkTime,
    /// How many processes of hypervisors are no VMs because `[trust]` does not name their users.
    pub shut_out: AtomicUsize,
}

/// How long one look goes through the descriptors of a process before the rest waits for the next tick.
#[derive(Clone, Copy, Debug)]
pub struct WalkTime {
    pub trusted: Duration,
    pub others: Duration,
}

impl Default for WalkTime {
    fn default() -> Self {
        Self { trusted: PATIENCE / 4, others: PATIENCE / 20 }
    }
}

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

/// The network devices that a process holds.
#[derive(Clone, Debug)]
pub struct Holdings {
    start_ticks: u64,
    /// When the look began.
    pub descriptors: Option<u64>,
    pub uid: Option<u32>,
    /// An error where this daemon may not know it.
    pub taps: Result<Taps, SourceError>,
}

impl Observer {
    pub fn quick(&self, pid: u32, wanted: QuickQuery) -> QuickReading {
        let process = ProcessDir::new(&self.host, pid);
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
    pub fn vm(
        &self,
        pid: u32,
        progress: Option<Holdings>,
    ) -> (Option<ProgramFile>, Result<Holdings, ReadError>) {
        let process = ProcessDir::new(&self.host, pid);
        (ProgramFile::of(&process), Holdings::read(&process, self, progress))
    }

    /// Those of the devices that the process still holds under the same descriptors.
    pub fn still_held(
        &self,
        pid: u32,
        uid: Option<u32>,
        known: Vec<DeviceDescriptor>,
    ) -> Vec<DeviceDescriptor> {
        still_held(&ProcessDir::new(&self.host, pid), uid, &self.devices, known)
    }

    /// Whether a process is a VM. A process that another source names counts as a holder of devices.
    pub fn new_process(&self, pid: u32, is_named: bool) -> Result<Option<ProcessVm>, ReadError> {
        let process = ProcessDir::new(&self.host, pid);
        match inspect(&process, self) {
            Ok(None) if is_named && let Ok(KvmFinding::Vm(vm, true)) = kvm::look(&process, self, None) => {
                Ok(Some(*vm))
            }
            Ok(None) if is_named => ProcessVm::holder(&process, self, None).map(|vm| Some(vm.unlisted())),
            found => found,
        }
    }

    /// Whether a process is a VM by its KVM descriptors.
    pub fn kvm(&self, pid: u32, progress: Option<KvmProgress>) -> Result<KvmFinding, ReadError> {
        kvm::look(&ProcessDir::new(&self.host, pid), self, progress)
    }

    /// A process that may hold devices of a VM.
    pub fn holder(&self, pid: u32, progress: Option<Holdings>) -> Option<ProcessVm> {
        ProcessVm::holder(&ProcessDir::new(&self.host, pid), self, progress).ok()
    }

    /// How long a look goes through the descriptors of a process of this user.
    pub fn time(&self, uid: Option<u32>) -> Duration {
        if self.trust.is_trusted(uid) { self.pace.trusted } else { self.pace.others }
    }
}

impl Holdings {
    /// Goes on with `progress`, where that is of the same process and user.
    pub fn read(
        process: &ProcessDir,
        observer: &Observer,
        progress: Option<Self>,
    ) -> Result<Self, ReadError> {
        let uid = process.uid();
        let start_ticks = process.stat()?.start_ticks;
        let progress = progress.filter(|progress| progress.start_ticks == start_ticks && progress.uid == uid);
        let descriptors =
            progress.as_ref().map_or_else(|| process.descriptor_count(), |progress| progress.descriptors);
        let before = progress.and_then(|progress| progress.taps.ok());
        let taps = match taps(process, uid, &observer.devices, before, observer.time(uid)) {
            Ok(taps) => Ok(taps),
            Err(ReadError::Failed(error)) if error.io_kind() == Some(io::ErrorKind::PermissionDenied) => {
                Err(error)
            }
            Err(read_error) => return Err(read_error),
        };
        Ok(Self { start_ticks, descriptors, uid, taps })
    }

    /// Whether the look at its descriptors has not ended.
    pub fn is_partial(&self) -> bool {
        self.taps.as_ref().is_ok_and(|taps| taps.rest.is_some())
    }
}
