//! By clsact: as direct-action filters of a qdisc, which stay by themselves.
//!
//! A qdisc or a filter that is not ours is never touched, so the qdisc stays: others may have filters on it by then.

use std::error::Error;
use std::mem;

use aya::programs::ProgramError;
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
};
use rustix::io::Errno;

use super::super::direction::{BOTH, Direction};
use super::super::error::{LoadError, errno_of, unless};
use super::super::programs::load::LoadedPrograms;
use super::super::programs::pins::Pins;
use super::attached::{AttachedPrograms, Hook, both, both_left};
use crate::model::AttachMode;
use crate::net::rtnetlink::Links;

/// The first: programs of others that end the chain come after the count.
const PRIORITY: u16 = 1;

/// Tell our filters from those of others with the same priority, and from each other: where both directions are one chain,
/// none takes the place of the other.
const INGRESS_HANDLE: TcHandle = TcHandle::new(0, 0x766d);
const EGRESS_HANDLE: TcHandle = TcHandle::new(0, 0x766e);

/// How the kernel says that a filter is not there: nor perhaps the qdisc, a hook in this direction, or the device.
const NOT_THERE: &[Errno] = &[Errno::NOENT, Errno::INVAL, Errno::OPNOTSUPP, Errno::NODEV];

/// The kind of the qdisc that has hooks in both directions.
const CLSACT: &str = "clsact";

pub(crate) fn attach(
    loaded: &mut LoadedPrograms,
    pins: Option<&Pins>,
    ifindex: u32,
    device: &str,
) -> Result<AttachedPrograms, LoadError> {
    match qdisc_add_clsact(device) {
        Err(error) if already_there(&error) => {
            let there =
                Links::open().and_then(|links| links.ingress_qdisc(ifindex)).map_err(LoadError::Links)?;
            // What would be hung on the egress of an `ingress` qdisc comes to be on its ingress.
            if there != CLSACT {
                return Err(LoadError::OtherQdisc { kind: there });
            }
        }
        result => result.map_err(LoadError::Qdisc)?,
    }
    both(AttachMode::Clsact, pins.is_some(), |direction| {
        let program = loaded.program(direction.program())?;
        let filter = NlOptions { priority: PRIORITY, handle: handle(direction), classid: None };
        let options = TcAttachOptions::Netlink(filter);
        let link = match program.attach_with_options(device, direction.attach_type(), options) {
            // Left by a daemon that was killed.
            Err(error) if already_there(&error) => replace_filter(loaded, direction, device)?,
            result => program.take_link(result?)?,
        };
        Ok(Hook { link, pin: None })
    })
}

/// The filters that are there, now with the programs of this daemon; `None` where one is not there.
pub(crate) fn adopt(
    loaded: &mut LoadedPrograms,
    device: &str,
) -> Result<Option<AttachedPrograms>, LoadError> {
    both_left(AttachMode::Clsact, |direction| {
        let replaced = unless(NOT_THERE, replace_filter(loaded, direction, device))?;
        Ok(replaced.map(|link| Hook { link, pin: None }))
    })
}

/// Whether our filter is on the device: asked by replacing it by itself, which is refused where it is not.
pub(crate) fn is_on(
    loaded: &mut LoadedPrograms,
    direction: Direction,
    device: &str,
) -> Result<bool, LoadError> {
    let replaced = unless(NOT_THERE, replace_filter(loaded, direction, device))?;
    Ok(replaced.map(mem::forget).is_some())
}

/// Deletes our filters on a device. False where there were none.
pub(crate) fn remove_filters(device: &str) -> Result<bool, LoadError> {
    let removed = BOTH.map(|direction| {
        let detached = left_filter(device, direction).and_then(aya::programs::Link::detach);
        unless(NOT_THERE, detached.map_err(LoadError::Program))
    });
    // Both are tried, also when the first is not there.
    let [ingress, egress] = removed;
    Ok([ingress?, egress?].iter().any(Option::is_some))
}

/// Puts the program in the place of our filter; refused when there is none.
fn replace_filter(
    loaded: &mut LoadedPrograms,
    direction: Direction,
    device: &str,
) -> Result<SchedClassifierLink, LoadError> {
    let program = loaded.program(direction.program())?;
    let link = program.attach_to_link(left_filter(device, direction)?)?;
    Ok(program.take_link(link)?)
}

/// Our filter on a device, whoever made it.
fn left_filter(device: &str, direction: Direction) -> Result<SchedClassifierLink, ProgramError> {
    let attach_type = direction.attach_type();
    SchedClassifierLink::attached(device, attach_type, PRIORITY, handle(direction), None)
        .map_err(|error| ProgramError::TcError(TcError::IoError(error)))
}

fn already_there(error: &(dyn Error + 'static)) -> bool {
    errno_of(error) == Some(Errno::EXIST.raw_os_error())
}

fn handle(direction: Direction) -> TcHandle {
    match direction {
        Direction::Ingress => INGRESS_HANDLE,
        Direction::Egress => EGRESS_HANDLE,
    }
}
