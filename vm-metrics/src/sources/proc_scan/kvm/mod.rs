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

use std::fs;
use std::io;

use self::activity::{Activity, activity};
pub use self::held::HeldKvm;
pub use self::identity::{Identity, identity};
pub use self::pace::Watch;
use super::executable;
use super::inspect::{Vm, inspect_as};
use super::observer::Observer;
use super::process::{Process, Unread, unread};
use super::taps::MAX_DESCRIPTORS;

/// What a look for KVM finds in a process.
#[derive(Debug)]
pub enum Found {
    Nothing,
    /// It has to do with KVM, and runs no vCPU.
    Holds,
    /// A VM that runs; `false` where that is likely and not certain.
    Vm(Box<Vm>, bool),
    /// This daemon may not look.
    Refused,
}

/// Looks at the names of a process's descriptors, and closer where they are KVM's.
pub fn look(process: &Process, observer: &Observer) -> Result<Found, Unread> {
    if !observer.trust.may_run_vms(process.uid()) {
        return Ok(Found::Nothing);
    }
    let held = match held(process) {
        Ok(held) => held,
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

fn held(process: &Process) -> Result<HeldKvm, Unread> {
    let path = process.path("fd");
    let entries = fs::read_dir(&path).map_err(|error| unread("list", &path, error))?;
    let mut held = HeldKvm::default();
    for entry in entries.take(MAX_DESCRIPTORS) {
        let entry = entry.map_err(|error| unread("list", &path, error))?;
        match fs::read_link(entry.path()) {
            Ok(target) => held.add(&target.to_string_lossy()),
            // Closed since the listing.
            Err(error) => match unread("read link", entry.path(), error) {
                Unread::Gone => {}
                failed @ Unread::Failed(_) => return Err(failed),
            },
        }
    }
    Ok(held)
}
