//! Finds VMs of any program: processes with a KVM VM whose vCPUs have run.
//!
//! Programs that `executable` knows are VMs by their command lines. Those whose command line is no VM's are found here as
//! any other program, if a vCPU of theirs has surely run. A process is one VM, however many VMs of KVM it holds.

mod activity;
mod children;
mod held;
mod identity;
mod round;
mod schedule;

use std::io;
use std::time::Duration;

use self::activity::{Activity, activity};
pub use self::held::KvmDescriptors;
pub use self::identity::{KvmIdentity, identity};
pub use self::schedule::KvmSchedule;
use super::inspect::{ProcessVm, inspect_as};
use super::observer::Observer;
use super::walk::{DirOffset, walk};
use crate::procfs::executable;
use crate::sources::process::{ProcessDir, ReadError};

/// The result of a look for KVM.
#[derive(Debug)]
pub enum KvmFinding {
    Nothing,
    /// It has to do with KVM, and runs no vCPU.
    Holds,
    /// A VM that runs; `false` where that is likely and not certain.
    Vm(Box<ProcessVm>, bool),
    /// It has so many descriptors that the look at them goes on in the next call.
    Unfinished(KvmProgress),
    /// This daemon may not look.
    Refused,
}

/// A look that has not ended.
#[derive(Clone, Debug)]
pub struct KvmProgress {
    start_ticks: u64,
    held: KvmDescriptors,
    rest: Option<DirOffset>,
    /// How long the look has taken so far.
    pub took: Duration,
}

/// Looks at the names of a process's descriptors, and closer where they are KVM's. Goes on with `progress`.
pub fn look(
    process: &ProcessDir,
    observer: &Observer,
    progress: Option<KvmProgress>,
) -> Result<KvmFinding, ReadError> {
    let uid = process.uid();
    if !observer.trust.may_run_vms(uid) {
        return Ok(KvmFinding::Nothing);
    }
    let held = match held(process, progress, observer.time(uid)) {
        Ok(progress) if progress.rest.is_some() => return Ok(KvmFinding::Unfinished(progress)),
        Ok(progress) => progress.held,
        Err(ReadError::Failed(error)) if error.io_kind() == Some(io::ErrorKind::PermissionDenied) => {
            return Ok(KvmFinding::Refused);
        }
        Err(read_error) => return Err(read_error),
    };
    let Some(program) = process.executable()? else { return Ok(KvmFinding::Nothing) };
    if !held.has_vcpus() {
        return Ok(if held.is_any() { KvmFinding::Holds } else { KvmFinding::Nothing });
    }
    let activity = activity(process)?;
    if activity == Activity::Idle {
        return Ok(KvmFinding::Holds);
    }
    let has_run = activity == Activity::Ran;
    // A build under a name of its own still has the command line of its kind.
    let vm = match executable::hypervisor(&program).or_else(|| executable::kind(&program)) {
        Some(hypervisor) => match inspect_as(process, observer, hypervisor, &program)? {
            // Its arguments only print a version, but it runs a VM. A fork runs no vCPU.
            None if has_run => Some(ProcessVm::of_kvm(process, observer, &program)?),
            vm => vm,
        },
        None => Some(ProcessVm::of_kvm(process, observer, &program)?),
    };
    Ok(vm.map_or(KvmFinding::Holds, |vm| KvmFinding::Vm(Box::new(vm), has_run)))
}

fn held(
    process: &ProcessDir,
    progress: Option<KvmProgress>,
    time: Duration,
) -> Result<KvmProgress, ReadError> {
    let start_ticks = process.stat()?.start_ticks;
    let new = KvmProgress { start_ticks, held: KvmDescriptors::default(), rest: None, took: Duration::ZERO };
    let mut progress = progress.filter(|progress| progress.start_ticks == start_ticks).unwrap_or(new);
    progress.rest = walk(process, progress.rest, time, |_, target| progress.held.add(target))?;
    Ok(progress)
}
