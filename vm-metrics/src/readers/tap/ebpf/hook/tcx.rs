//! Attaches by TCX, first in the chain, with an optionally pinned link.

use std::path::PathBuf;

use aya::programs::LinkOrder;
use aya::programs::links::{FdLink, LinkInfo, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use rustix::io::Errno;

use super::super::direction::Direction;
use super::super::error::{LoadError, unless};
use super::super::programs::load::LoadedPrograms;
use super::super::programs::pins::{Pins, remove_file};
use super::attached::{AttachedPrograms, Hook, both, both_left};
use super::links;
use crate::model::AttachMode;

pub(crate) fn attach(
    loaded: &mut LoadedPrograms,
    pins: Option<&Pins>,
    ifindex: u32,
    device: &str,
) -> Result<AttachedPrograms, LoadError> {
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

/// The links that are pinned, now with the programs of this daemon; `None` where they are not on this device.
///
/// A device that was moved to another namespace has taken them along, and this one may have its index.
pub(crate) fn adopt(
    loaded: &mut LoadedPrograms,
    pins: &Pins,
    ifindex: u32,
) -> Result<Option<AttachedPrograms>, LoadError> {
    both_left(AttachMode::Tcx, |direction| {
        let path = pins.link(ifindex, direction);
        let pinned = PinnedLink::from_pin(&path).map_err(LoadError::Link);
        let Some(link) = unless(&[Errno::NOENT], pinned)?.map(FdLink::from) else { return Ok(None) };
        if !is_on_device(&link.info()?, direction, ifindex)? {
            return Ok(None);
        }
        let program = loaded.program(direction.program())?;
        // Refused when the device is gone by now, or when the programs are attached otherwise in this version.
        let updated = program.attach_to_link(link.try_into()?).map_err(LoadError::Program);
        let Some(link) = unless(&[Errno::NOLINK, Errno::INVAL], updated)? else { return Ok(None) };
        Ok(Some(Hook { link: program.take_link(link)?, pin: Some(path) }))
    })
}

/// Whether a link is on the device, with the program of this daemon.
pub(crate) fn is_on(
    loaded: &mut LoadedPrograms,
    link: &SchedClassifierLink,
    direction: Direction,
    ifindex: u32,
) -> Result<bool, LoadError> {
    let own = loaded.program(direction.program())?.info()?.id();
    let link = <&FdLink>::try_from(link)?.info()?;
    Ok(link.program_id() == own && is_on_device(&link, direction, ifindex)?)
}

/// The link itself says of which index its device is, but not in which namespace.
fn is_on_device(link: &LinkInfo, direction: Direction, ifindex: u32) -> Result<bool, LoadError> {
    let links = links::on_device(ifindex, direction).map_err(LoadError::Query);
    Ok(unless(&[Errno::NODEV], links)?.is_some_and(|links| links.contains(&link.id())))
}
