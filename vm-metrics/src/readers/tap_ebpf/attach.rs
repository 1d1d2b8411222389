//! Hangs the programs on one TAP, and takes them off.
//!
//! TCX (Linux 6.6) is tried first, else the programs become direct-action filters of a clsact qdisc. Both come before the
//! programs of others and let every frame go on to them. A qdisc or a filter that is not ours is never touched, so the
//! clsact qdisc stays: others may have filters on it by then.

use std::error::Error;

use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
};
use aya::programs::{LinkOrder, ProgramError, TcAttachType};
use rustix::io::Errno;
use thiserror::Error;
use vm_metrics_common::names;

use super::Way;
use super::load::{LoadError, Loaded, errno_of};
use crate::model::AttachMode;
use crate::readers::ReaderError;

/// The first: programs of others that end the chain come after the count.
const CLSACT_PRIORITY: u16 = 1;

/// Tells our filters from those of others with the same priority.
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 0x766d);

/// The programs on one TAP. Dropping it takes them off.
pub(super) struct Attached {
    pub(super) mode: AttachMode,
    _ingress: SchedClassifierLink,
    _egress: SchedClassifierLink,
}

#[derive(Debug, Error)]
#[error("cannot attach to {device}: {source}")]
pub(super) struct AttachError {
    device: String,
    source: Box<LoadError>,
}

impl AttachError {
    pub(super) fn new(device: &str, source: LoadError) -> Self {
        Self { device: device.to_owned(), source: Box::new(source) }
    }
}

impl From<&AttachError> for ReaderError {
    fn from(error: &AttachError) -> Self {
        Self::Device {
            device: error.device.clone(),
            problem: format!("cannot attach the programs: {}", error.source.in_one_line()),
            errno: errno_of(error),
        }
    }
}

/// Attaches to both directions. `way` becomes `Clsact` for good when the kernel turns out to have no TCX.
pub(super) fn attach(loaded: &mut Loaded, device: &str, way: &mut Way) -> Result<Attached, LoadError> {
    match *way {
        Way::Tcx => tcx(loaded, device),
        Way::Clsact => clsact(loaded, device),
        Way::Auto => match tcx(loaded, device) {
            Err(error) if is_unsupported(&error) => {
                tracing::info!("no TCX on this kernel ({}): attaching by clsact", error.in_one_line());
                *way = Way::Clsact;
                clsact(loaded, device)
            }
            result => result,
        },
    }
}

fn already_there(error: &(dyn Error + 'static)) -> bool {
    errno_of(error) == Some(Errno::EXIST.raw_os_error())
}

/// A kernel that does not know the attach type says so with EINVAL.
fn is_unsupported(error: &LoadError) -> bool {
    let errno = errno_of(error).map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP))
}

fn tcx(loaded: &mut Loaded, device: &str) -> Result<Attached, LoadError> {
    let mut attach = |program, direction| -> Result<SchedClassifierLink, LoadError> {
        let program = loaded.program(program)?;
        let at_head = TcAttachOptions::TcxOrder(LinkOrder::first());
        let link = program.attach_with_options(device, direction, at_head)?;
        Ok(program.take_link(link)?)
    };
    Ok(Attached {
        mode: AttachMode::Tcx,
        _ingress: attach(names::PROGRAM_INGRESS, TcAttachType::Ingress)?,
        _egress: attach(names::PROGRAM_EGRESS, TcAttachType::Egress)?,
    })
}

fn clsact(loaded: &mut Loaded, device: &str) -> Result<Attached, LoadError> {
    match qdisc_add_clsact(device) {
        Err(error) if !already_there(&error) => return Err(LoadError::Qdisc(error)),
        _ => {}
    }
    let mut attach = |program, direction| -> Result<SchedClassifierLink, LoadError> {
        let program = loaded.program(program)?;
        let filter = NlOptions { priority: CLSACT_PRIORITY, handle: CLSACT_HANDLE, classid: None };
        let link = match program.attach_with_options(device, direction, TcAttachOptions::Netlink(filter)) {
            // Left by a daemon that was killed: replaced in one step.
            Err(error) if already_there(&error) => {
                let left =
                    SchedClassifierLink::attached(device, direction, CLSACT_PRIORITY, CLSACT_HANDLE, None)
                        .map_err(|error| ProgramError::TcError(TcError::IoError(error)))?;
                program.attach_to_link(left)?
            }
            result => result?,
        };
        Ok(program.take_link(link)?)
    };
    Ok(Attached {
        mode: AttachMode::Clsact,
        _ingress: attach(names::PROGRAM_INGRESS, TcAttachType::Ingress)?,
        _egress: attach(names::PROGRAM_EGRESS, TcAttachType::Egress)?,
    })
}
