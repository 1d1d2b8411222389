//! Checks the resource limits of this process at the start.

mod memory;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

use crate::host::Host;
use crate::readers::FileBudget;

/// The log warns if the limit allows fewer VMs.
const FEW_VMS: u64 = 100;

/// Too small a limit is an error with a number at the start, rather than a hang or a kill later.
#[derive(Debug, Error)]
pub(crate) enum LimitError {
    #[error(
        "the limit of open files is {limit}: at least {needed} are needed \
         (LimitNOFILE= of the service, ulimit -n)"
    )]
    Files { limit: u64, needed: u64 },
    #[error("the limit of {what} is {} MiB: at least {} MiB are needed ({key})", mib(*.limit), mib(*.needed))]
    Memory { what: String, limit: u64, needed: u64, key: &'static str },
}

/// Raises the limit of open files to its maximum, then checks all limits. `maps` is the size of the eBPF maps.
pub(crate) fn check(host: &Host, maps: u64) -> Result<(), LimitError> {
    raise_open_files();
    check_files(FileBudget::of_this_process())?;
    memory::check(host, maps)
}

fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(errno) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("cannot raise the limit of open files from {:?}: {errno}", limit.current);
    }
}

fn check_files(budget: FileBudget) -> Result<(), LimitError> {
    let limit = budget.limit;
    if let Some(needed) = budget.shortage() {
        return Err(LimitError::Files { limit, needed });
    }
    let vms = budget.vms();
    if vms < FEW_VMS {
        tracing::warn!("the limit of open files is {limit}: enough for about {vms} VMs (LimitNOFILE=)");
    }
    Ok(())
}

/// Rounded up, so that the printed limit is enough.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
