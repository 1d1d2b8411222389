//! Hangs the programs on one TAP, and takes them off.
//!
//! TCX (Linux 6.6) is tried first, else the programs become direct-action filters of a clsact qdisc. Both come before the
//! programs of others and let every frame go on to them. A qdisc or a filter that is not ours is never touched, so the
//! clsact qdisc stays: others may have filters on it by then.

use std::error::Error;
use std::mem;
use std::path::PathBuf;
use std::thread;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifier, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
};
use aya::programs::{LinkOrder, ProgramError, TcAttachType};
use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use vm_metrics_common::names;

use super::Way;
use super::error::{LoadError, errno_of};
use super::load::Loaded;
use super::pins::{Pins, remove_file};
use crate::model::AttachMode;
use crate::readers::rtnetlink::Links;

/// The first: programs of others that end the chain come after the count.
const CLSACT_PRIORITY: u16 = 1;

/// Tell our filters from those of others with the same priority, and from each other: where both directions are one chain,
/// none takes the place of the other.
const INGRESS_HANDLE: TcHandle = TcHandle::new(0, 0x766d);
const EGRESS_HANDLE: TcHandle = TcHandle::new(0, 0x766e);

/// The kind of the qdisc that has hooks in both directions.
const CLSACT: &str = "clsact";

/// The first device of every network namespace.
const LOOPBACK: u32 = 1;

/// Host perspective, as the kernel names its hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

/// The programs on one TAP.
pub(super) struct Attached {
    pub(super) mode: AttachMode,
    hooks: Vec<Hook>,
    /// Whether they stay when this is dropped.
    stay: bool,
}

struct Hook {
    link: SchedClassifierLink,
    pin: Option<PathBuf>,
}

impl Attached {
    /// No program at all, for the time being.
    pub(super) fn nothing(mode: AttachMode) -> Self {
        Self { mode, hooks: Vec::new(), stay: false }
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
        Way::Tcx => tcx(loaded, pins, ifindex, device),
        Way::Clsact => clsact(loaded, pins, ifindex, device),
        Way::Auto => match tcx(loaded, pins, ifindex, device) {
            Err(error) if is_unsupported(&error) => {
                tracing::info!("no TCX on this kernel ({}): attaching by clsact", error.in_one_line());
                *way = Way::Clsact;
                clsact(loaded, pins, ifindex, device)
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
pub(super) fn adopt(loaded: &mut Loaded, pins: &Pins, ifindex: u32, device: &str) -> Option<Attached> {
    let Ok(links) = adopt_links(loaded, pins, ifindex) else { return adopt_filters(loaded, device).ok() };
    // A device that was moved to another namespace has taken them along, and this one has its index.
    if BOTH.iter().all(|direction| is_on(loaded, links.mode, *direction, device)) {
        return Some(links);
    }
    if let Err(error) = links.remove() {
        tracing::warn!("{}", error.in_one_line());
    }
    None
}

/// Whether the program is on a device of which it is said to be.
pub(super) fn is_on(loaded: &mut Loaded, mode: AttachMode, direction: Direction, device: &str) -> bool {
    let asked = match mode {
        AttachMode::None => Ok(false),
        AttachMode::Tcx => is_on_by_tcx(loaded, direction, device),
        // Asked by replacing it by itself, which is refused where it is not.
        AttachMode::Clsact => replace_filter(loaded, direction, device).map(|link| {
            mem::forget(link);
            true
        }),
    };
    asked.unwrap_or(false)
}

fn is_on_by_tcx(loaded: &mut Loaded, direction: Direction, device: &str) -> Result<bool, LoadError> {
    let own = loaded.program(direction.program())?.info()?.id();
    let (_, programs) = SchedClassifier::query_tcx(device, direction.attach_type())?;
    Ok(programs.iter().any(|program| program.id() == own))
}

/// Deletes our filters on a device; there may be none.
pub(super) fn remove_filters(device: &str) -> bool {
    let remove = |direction: Direction| {
        let link = left_filter(device, direction)?;
        aya::programs::Link::detach(link)
    };
    // Both, also when the first is not there.
    BOTH.map(|direction| remove(direction).is_ok()).contains(&true)
}

/// A kernel that does not know the attach type says so with EINVAL.
fn is_unsupported(error: &LoadError) -> bool {
    let errno = errno_of(error).map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP))
}

/// Both directions, or none.
fn both(
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

fn tcx(loaded: &mut Loaded, pins: Option<&Pins>, ifindex: u32, device: &str) -> Result<Attached, LoadError> {
    both(AttachMode::Tcx, pins.is_some(), |direction| {
        let program = loaded.program(direction.program())?;
        let at_head = TcAttachOptions::TcxOrder(LinkOrder::first());
        let link = program.attach_with_options(device, direction.attach_type(), at_head)?;
        let link = program.take_link(link)?;
        match pins {
            Some(pins) => pinned(link, pins.link(ifindex, direction)),
            None => Ok(Hook { link, pin: None }),
        }
    })
}

fn pinned(link: SchedClassifierLink, path: PathBuf) -> Result<Hook, LoadError> {
    // A pin of a device that is gone may be in the way.
    remove_file(&path)?;
    let link = FdLink::try_from(link)?.pin(&path)?;
    Ok(Hook { link: FdLink::from(link).try_into()?, pin: Some(path) })
}

fn adopt_links(loaded: &mut Loaded, pins: &Pins, ifindex: u32) -> Result<Attached, LoadError> {
    both(AttachMode::Tcx, true, |direction| {
        let path = pins.link(ifindex, direction);
        let program = loaded.program(direction.program())?;
        let left = FdLink::from(PinnedLink::from_pin(&path)?).try_into()?;
        // Refused when the device is gone.
        let link = program.attach_to_link(left)?;
        Ok(Hook { link: program.take_link(link)?, pin: Some(path) })
    })
}

fn clsact(
    loaded: &mut Loaded,
    pins: Option<&Pins>,
    ifindex: u32,
    device: &str,
) -> Result<Attached, LoadError> {
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
        let filter = NlOptions { priority: CLSACT_PRIORITY, handle: direction.handle(), classid: None };
        let options = TcAttachOptions::Netlink(filter);
        let link = match program.attach_with_options(device, direction.attach_type(), options) {
            // Left by a daemon that was killed.
            Err(error) if already_there(&error) => replace_filter(loaded, direction, device)?,
            result => program.take_link(result?)?,
        };
        Ok(Hook { link, pin: None })
    })
}

fn adopt_filters(loaded: &mut Loaded, device: &str) -> Result<Attached, LoadError> {
    both(AttachMode::Clsact, true, |direction| {
        Ok(Hook { link: replace_filter(loaded, direction, device)?, pin: None })
    })
}

/// Puts the program in the place of our filter; refused when there is none.
fn replace_filter(
    loaded: &mut Loaded,
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
    SchedClassifierLink::attached(device, attach_type, CLSACT_PRIORITY, direction.handle(), None)
        .map_err(|error| ProgramError::TcError(TcError::IoError(error)))
}

fn already_there(error: &(dyn Error + 'static)) -> bool {
    errno_of(error) == Some(Errno::EXIST.raw_os_error())
}

impl Direction {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Ingress => names::PROGRAM_INGRESS,
            Self::Egress => names::PROGRAM_EGRESS,
        }
    }

    fn handle(self) -> TcHandle {
        match self {
            Self::Ingress => INGRESS_HANDLE,
            Self::Egress => EGRESS_HANDLE,
        }
    }

    fn attach_type(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }
}
