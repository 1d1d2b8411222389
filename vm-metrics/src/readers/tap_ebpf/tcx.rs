//! By TCX: at the head of those on the device, as a link that a pin may hold.

use std::path::PathBuf;

use aya::programs::LinkOrder;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{SchedClassifier, SchedClassifierLink, TcAttachOptions};

use super::attach::{Attached, Direction, Hook, both};
use super::error::LoadError;
use super::load::Loaded;
use super::pins::{Pins, remove_file};
use crate::model::AttachMode;

pub(super) fn attach(
    loaded: &mut Loaded,
    pins: Option<&Pins>,
    ifindex: u32,
    device: &str,
) -> Result<Attached, LoadError> {
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

/// The links that are pinned, now with the programs of this daemon.
pub(super) fn adopt(loaded: &mut Loaded, pins: &Pins, ifindex: u32) -> Result<Attached, LoadError> {
    both(AttachMode::Tcx, true, |direction| {
        let path = pins.link(ifindex, direction);
        let program = loaded.program(direction.program())?;
        let left = FdLink::from(PinnedLink::from_pin(&path)?).try_into()?;
        // Refused when the device is gone.
        let link = program.attach_to_link(left)?;
        Ok(Hook { link: program.take_link(link)?, pin: Some(path) })
    })
}

/// Whether the program is one of those on the device.
pub(super) fn is_on(loaded: &mut Loaded, direction: Direction, device: &str) -> Result<bool, LoadError> {
    let own = loaded.program(direction.program())?.info()?.id();
    let (_, programs) = SchedClassifier::query_tcx(device, direction.attach_type())?;
    Ok(programs.iter().any(|program| program.id() == own))
}
