//! Hangs the programs on one TAP, and takes them off.
//!
//! `tcx` (Linux 6.6) is tried first, else `clsact`. Both come before the programs of others and let every frame go on to
//! them.

use std::mem;
use std::path::PathBuf;
use std::thread;

use aya::programs::TcAttachType;
use aya::programs::tc::SchedClassifierLink;
use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use vm_metrics_common::names;

use super::error::{LoadError, errno_of};
use super::load::Loaded;
use super::pins::{Pins, remove_file};
use super::{Way, clsact, tcx};
use crate::model::AttachMode;

/// The first device of every network namespace.
const LOOPBACK: u32 = 1;

/// Host perspective, as the kernel names its hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

pub(super) const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

/// The programs on one TAP.
pub(super) struct Attached {
    pub(super) mode: AttachMode,
    hooks: Vec<Hook>,
    /// Whether they stay when this is dropped.
    stay: bool,
}

/// One of them; they are in the order of [`BOTH`].
pub(super) struct Hook {
    pub(super) link: SchedClassifierLink,
    pub(super) pin: Option<PathBuf>,
}

impl Attached {
    /// No program at all, for the time being.
    pub(super) fn nothing(mode: AttachMode) -> Self {
        Self { mode, hooks: Vec::new(), stay: false }
    }

    /// Whether one of the programs is on its device, as the kernel says; an error when it does not say.
    pub(super) fn is_on(
        &self,
        loaded: &mut Loaded,
        direction: Direction,
        ifindex: u32,
        device: &str,
    ) -> Result<bool, LoadError> {
        let Some((_, hook)) = BOTH.iter().zip(&self.hooks).find(|(hooked, _)| **hooked == direction) else {
            return Ok(false);
        };
        match self.mode {
            AttachMode::None => Ok(false),
            AttachMode::Tcx => tcx::is_on(loaded, &hook.link, direction, ifindex),
            AttachMode::Clsact => clsact::is_on(loaded, direction, device),
        }
    }

    /// Takes the programs off, whether they were to stay or not.
    pub(super) fn remove(mut self) -> Result<(), LoadError> {
        self.stay = false;
        let pins = self.hooks.iter().filter_map(|hook| hook.pin.clone());
        for pin in pins.collect::<Vec<_>>() {
            remove_file(&pin)?;
        }
        Ok(())
    }

    /// Lets go of what is not there any more: deleting it would delete what has taken its place.
    pub(super) fn forget(&mut self) {
        self.hooks.drain(..).for_each(|hook| {
            if self.mode == AttachMode::Clsact {
                mem::forget(hook.link);
            }
        });
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        for hook in self.hooks.drain(..) {
            if self.stay && self.mode == AttachMode::Clsact {
                // Dropping a filter's link deletes the filter. A link with a pin only loses a file descriptor.
                mem::forget(hook.link);
            }
        }
    }
}

/// Attaches to both directions. `way` becomes `Clsact` for good when the kernel turns out to have no TCX.
pub(super) fn attach(
    loaded: &mut Loaded,
    pins: Option<&Pins>,
    ifindex: u32,
    device: &str,
    way: &mut Way,
) -> Result<Attached, LoadError> {
    match *way {
        Way::Tcx => tcx::attach(loaded, pins, ifindex, device),
        Way::Clsact => clsact::attach(loaded, pins, ifindex, device),
        Way::Auto => match tcx::attach(loaded, pins, ifindex, device) {
            Err(error) if is_unsupported(&error) => {
                tracing::info!("no TCX on this kernel ({}): attaching by clsact", error.in_one_line());
                *way = Way::Clsact;
                clsact::attach(loaded, pins, ifindex, device)
            }
            result => result,
        },
    }
}

/// Attaches to the loopback device of a network namespace that is made for it and that nobody else sees.
///
/// `None` when such a namespace may not be made.
pub(super) fn try_out(loaded: &mut Loaded, mut way: Way) -> Option<Result<AttachMode, LoadError>> {
    let trial = || {
        // SAFETY: only the namespace of this thread changes, which ends here; it shares no file descriptor table of its own.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.ok()?;
        Some(attach(loaded, None, LOOPBACK, "lo", &mut way).map(|attached| attached.mode))
    };
    thread::scope(|scope| scope.spawn(trial).join()).ok().flatten()
}

/// What a daemon before this one has left on an interface, now with the programs of this one: the kernel puts them in the
/// place of the old in one step. `None` when nothing is left, or the device is another one now.
pub(super) fn adopt(
    loaded: &mut Loaded,
    pins: &Pins,
    ifindex: u32,
    device: &str,
) -> Result<Option<Attached>, LoadError> {
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

/// Both directions, or none.
pub(super) fn both(
    mode: AttachMode,
    stay: bool,
    mut one: impl FnMut(Direction) -> Result<Hook, LoadError>,
) -> Result<Attached, LoadError> {
    let mut attached = Attached { mode, hooks: Vec::new(), stay };
    for direction in BOTH {
        match one(direction) {
            Ok(hook) => attached.hooks.push(hook),
            Err(error) => {
                attached.remove()?;
                return Err(error);
            }
        }
    }
    Ok(attached)
}

/// Both directions as they were left, or none. When an answer is missing, all stays as it is.
pub(super) fn both_left(
    mode: AttachMode,
    mut one: impl FnMut(Direction) -> Result<Option<Hook>, LoadError>,
) -> Result<Option<Attached>, LoadError> {
    let mut attached = Attached { mode, hooks: Vec::new(), stay: true };
    for direction in BOTH {
        match one(direction)? {
            Some(hook) => attached.hooks.push(hook),
            None => return attached.remove().map(|()| None),
        }
    }
    Ok(Some(attached))
}

impl Direction {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Ingress => names::PROGRAM_INGRESS,
            Self::Egress => names::PROGRAM_EGRESS,
        }
    }

    pub(super) fn attach_type(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }
}
