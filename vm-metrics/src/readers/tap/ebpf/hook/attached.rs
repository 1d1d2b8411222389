//! The programs that are attached to one TAP, in both directions or in none.

use std::mem;
use std::path::PathBuf;

use aya::programs::MultiProgLink;
use aya::programs::tc::SchedClassifierLink;

use super::super::direction::{BOTH, Direction};
use super::super::error::LoadError;
use super::super::programs::pins::remove_file;
use super::links;
use crate::model::AttachMode;

/// The programs on one TAP.
pub(crate) struct AttachedPrograms {
    pub(crate) mode: AttachMode,
    hooks: Vec<Hook>,
    /// Whether they stay when this is dropped.
    stay: bool,
}

/// One of them; they are in the order of [`BOTH`].
pub(crate) struct Hook {
    pub(crate) link: SchedClassifierLink,
    pub(crate) pin: Option<PathBuf>,
}

impl AttachedPrograms {
    /// No program at all, for the time being.
    pub(crate) fn nothing(mode: AttachMode) -> Self {
        Self { mode, hooks: Vec::new(), stay: false }
    }

    /// The program of one direction; `None` where there is none.
    pub(crate) fn hook(&self, direction: Direction) -> Option<&Hook> {
        BOTH.iter().zip(&self.hooks).find_map(|(hooked, hook)| (*hooked == direction).then_some(hook))
    }

    /// Takes the programs off, whether they were to stay or not.
    pub(crate) fn remove(mut self) -> Result<(), LoadError> {
        self.stay = false;
        let pins = self.hooks.iter().filter_map(|hook| hook.pin.clone());
        for pin in pins.collect::<Vec<_>>() {
            remove_file(&pin)?;
        }
        Ok(())
    }

    /// Lets go of what is not there any more: deleting it would delete what has taken its place.
    pub(crate) fn forget(&mut self) {
        self.hooks.drain(..).for_each(|hook| {
            if self.mode == AttachMode::Clsact {
                mem::forget(hook.link);
            }
        });
    }
}

impl Drop for AttachedPrograms {
    fn drop(&mut self) {
        for hook in self.hooks.drain(..) {
            match (self.mode, self.stay) {
                // Dropping a filter's link deletes the filter. A link with a pin only loses a file descriptor.
                (AttachMode::Clsact, true) => mem::forget(hook.link),
                // Another process that lists links holds this one for a moment. It would count beside the next one.
                (AttachMode::Tcx, false) => detach(&hook.link),
                _ => {}
            }
        }
    }
}

fn detach(link: &SchedClassifierLink) {
    if let Ok(fd) = link.fd()
        && let Err(error) = links::detach(fd)
    {
        tracing::debug!("a link goes with its last descriptor: {error}");
    }
}

/// Both directions, or none.
pub(crate) fn both(
    mode: AttachMode,
    stay: bool,
    mut one: impl FnMut(Direction) -> Result<Hook, LoadError>,
) -> Result<AttachedPrograms, LoadError> {
    let mut attached = AttachedPrograms { mode, hooks: Vec::new(), stay };
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
pub(crate) fn both_left(
    mode: AttachMode,
    mut one: impl FnMut(Direction) -> Result<Option<Hook>, LoadError>,
) -> Result<Option<AttachedPrograms>, LoadError> {
    let mut attached = AttachedPrograms { mode, hooks: Vec::new(), stay: true };
    for direction in BOTH {
        match one(direction)? {
            Some(hook) => attached.hooks.push(hook),
            None => return attached.remove().map(|()| None),
        }
    }
    Ok(Some(attached))
}
