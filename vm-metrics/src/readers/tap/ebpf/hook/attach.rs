//! Attaches the programs to one TAP, and finds those that are on it.
//!
//! `tcx` (Linux 6.6) is tried first, else `clsact`. Both come before the programs of others and let every frame go on to
//! them.

use std::thread;

use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::super::direction::Direction;
use super::super::error::{LoadError, errno_of};
use super::super::options::AttachMethod;
use super::super::programs::load::LoadedPrograms;
use super::super::programs::pins::Pins;
use super::attached::AttachedPrograms;
use super::{clsact, tcx};
use crate::model::AttachMode;

/// The first device of every network namespace.
const LOOPBACK: u32 = 1;

/// Attaches to both directions. `way` becomes `Clsact` for good when the kernel turns out to have no TCX.
pub(crate) fn attach(
    loaded: &mut LoadedPrograms,
    pins: Option<&Pins>,
    ifindex: u32,
    device: &str,
    way: &mut AttachMethod,
) -> Result<AttachedPrograms, LoadError> {
    match *way {
        AttachMethod::Tcx => tcx::attach(loaded, pins, ifindex, device),
        AttachMethod::Clsact => clsact::attach(loaded, pins, ifindex, device),
        AttachMethod::Auto => match tcx::attach(loaded, pins, ifindex, device) {
            Err(error) if is_unsupported(&error) => {
                tracing::info!("no TCX on this kernel ({}): attaching by clsact", error.in_one_line());
                *way = AttachMethod::Clsact;
                clsact::attach(loaded, pins, ifindex, device)
            }
            result => result,
        },
    }
}

/// Attaches to the loopback device of a network namespace that is made for it and that nobody else sees.
///
/// `None` when such a namespace may not be made.
pub(crate) fn try_out(
    loaded: &mut LoadedPrograms,
    mut way: AttachMethod,
) -> Option<Result<AttachMode, LoadError>> {
    let trial = || {
        // SAFETY: only the namespace of this thread changes, which ends here; it shares no file descriptor table of its own.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.ok()?;
        Some(attach(loaded, None, LOOPBACK, "lo", &mut way).map(|attached| attached.mode))
    };
    thread::scope(|scope| scope.spawn(trial).join()).ok().flatten()
}

/// Takes over the attachments of an earlier daemon on an interface. The kernel replaces its programs by those of this one in
/// one step. `None` when nothing is left, or the device is another one now.
pub(crate) fn adopt(
    loaded: &mut LoadedPrograms,
    pins: &Pins,
    ifindex: u32,
    device: &str,
) -> Result<Option<AttachedPrograms>, LoadError> {
    let adopted = match pins.has_links(ifindex) {
        Ok(true) => tcx::adopt(loaded, pins, ifindex),
        Ok(false) => clsact::adopt(loaded, device),
        Err(error) => Err(error.into()),
    };
    adopted.map_err(|error| LoadError::Unverified(Box::new(error)))
}

/// A kernel that does not know the attach type says so with EINVAL.
fn is_unsupported(error: &LoadError) -> bool {
    let errno = errno_of(error).map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP))
}

/// Whether one of the programs is on its device, as the kernel says; an error when it does not say.
pub(crate) fn is_on(
    attached: &AttachedPrograms,
    loaded: &mut LoadedPrograms,
    direction: Direction,
    ifindex: u32,
    device: &str,
) -> Result<bool, LoadError> {
    let Some(hook) = attached.hook(direction) else { return Ok(false) };
    match attached.mode {
        AttachMode::None => Ok(false),
        AttachMode::Tcx => tcx::is_on(loaded, &hook.link, direction, ifindex),
        AttachMode::Clsact => clsact::is_on(loaded, direction, device),
    }
}
