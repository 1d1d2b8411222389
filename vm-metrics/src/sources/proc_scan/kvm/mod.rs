//! VMs of any program: a process that holds a VM of KVM and whose vCPUs have run.
//!
//! Programs that `executable` knows are VMs by their command lines. Those whose command line is no VM's are found here as
//! any other program, if a vCPU of theirs has surely run. A process is one VM, however many VMs of KVM it holds.

mod activity;
mod children;
mod held;
mod identity;
mod pace;
mod round;

use std::io;
use std::time::Duration;

use self::activity::{Activity, activity};
pub use self::held::HeldKvm;
pub use self::identity::{Identity, identity};
pub use self::pace::Watch;
use super::inspect::{Vm, inspect_as};
use super::observer::Observer;
use super::walk::{Place, walk};
use crate::sources::process::executable;
use crate::sources::process::{Process, Unread};

/// What a look for KVM finds in a process.
#[derive(Debug)]
pub enum Found {
    Nothing,
    /// It has to do with KVM, and runs no vCPU.
    Holds,
    /// A VM that runs; `false` where that is likely and not certain.
    Vm(Box<Vm>, bool),
    /// It has so many descriptors that the look at them goes on in the next call.
    Part(KvmPart),
    /// This daemon may not look.
    Refused,
}

/// A look that has not ended.
#[derive(Clone, Debug)]
pub struct KvmPart {
    start_ticks: u64,
    held: HeldKvm,
    rest: Option<Place>,
    /// How long the look has taken so far.
    pub took: Duration,
}

/// Looks at the names of a process's descriptors, and closer where they are KVM's. Goes on with `part`.
pub fn look(process: &Process, observer: &Observer, part: Option<KvmPart>) -> Result<Found, Unread> {
    let uid = process.uid();
    if !observer.trust.may_run_vms(uid) {
        return Ok(Found::Nothing);
    }
    let held = match held(process, part, observer.time(uid)) {
        Ok(part) if part.rest.is_some() => return Ok(Found::Part(part)),
        Ok(part) => part.held,
        Err(Unread::Failed(error)) if error.io_kind() == Some(io::ErrorKind::PermissionDenied) => {
            return Ok(Found::Refused);
        }
        Err(unread) => return Err(unread),
    };
    let Some(program) = process.executable()? else { return Ok(Found::Nothing) };
    if !held.has_vcpus() {
        return Ok(if held.is_any() { Found::Holds } else { Found::Nothing });
    }
    let activity = activity(process)?;
    if activity == Activity::Idle {
        return Ok(Found::Holds);
    }
    let has_run = activity == Activity::Ran;
    // A build under a name of its own still has the command line of its kind.
    let vm = match executable::hypervisor(&program).or_else(|| executable::kind(&program)) {
        Some(hypervisor) => match inspect_as(process, observer, hypervisor, &program)? {
            // It says that it only prints a version, and runs a VM. A fork of one runs no vCPU.
            None if has_run => Some(Vm::of_kvm(process, observer, &program)?),
            vm => vm,
        },
        None => Some(Vm::of_kvm(process, observer, &program)?),
    };
    Ok(vm.map_or(Found::Holds, |vm| Found::Vm(Box::new(vm), has_run)))
}

fn held(process: &Process, part: Option<KvmPart>, time: Duration) -> Result<KvmPart, Unread> {
    let start_ticks = process.stat()?.start_ticks;
    let new = KvmPart { start_ticks, held: HeldKvm::default(), rest: None, took: Duration::ZERO };
    let mut part = part.filter(|part| part.start_ticks == start_ticks).unwrap_or(new);
    part.rest = walk(process, part.rest, time, |_, target| part.held.add(target))?;
    Ok(part)
}
