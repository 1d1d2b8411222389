//! Programs that somebody has taken off are put back.

use std::mem;
use std::time::{Duration, Instant};

use super::super::direction::Direction;
use super::super::error::{AttachError, LoadError};
use super::super::hook::attach::{attach, is_on};
use super::super::hook::attached::AttachedPrograms;
use super::ProgramSet;
use crate::model::Nic;
use crate::readers::{ReadReport, ReaderError};

/// Programs that stay blind are put back once in this time.
const PUT_BACK: Duration = Duration::from_secs(60);

/// A TAP on which one of the programs does not see what passes.
pub(crate) struct Bypassed<'v> {
    pub(crate) ifindex: u32,
    pub(crate) nic: &'v Nic,
    pub(crate) direction: Direction,
}

impl ProgramSet {
    /// Puts the programs back where somebody has taken them off, or ended the chain before them; they go on in the same
    /// slot.
    pub(crate) fn attach_again(&mut self, blind: &[Bypassed], report: &mut ReadReport) {
        for blind in blind {
            match self.is_off(blind) {
                Ok(true) => {}
                Ok(false) => continue,
                // What may still be there is not taken off.
                Err(error) => {
                    report.error(ReaderError::from(&AttachError::new(&blind.nic.tap, error)));
                    continue;
                }
            }
            report.error(ReaderError::Lost { device: blind.nic.tap.clone() });
            if let Err(error) = self.attach_again_one(blind) {
                report.error(ReaderError::from(&AttachError::new(&blind.nic.tap, error)));
            }
        }
    }

    fn is_off(&mut self, Bypassed { ifindex, nic, direction }: &Bypassed) -> Result<bool, LoadError> {
        let Some(tap) = self.taps.get_mut(ifindex) else { return Ok(false) };
        let now = Instant::now();
        if *direction == Direction::Ingress {
            return Ok(true);
        }
        if now < tap.put_back_at {
            return Ok(false);
        }
        let is_on = is_on(&tap.attached, &mut self.loaded, *direction, *ifindex, &nic.tap);
        if !matches!(is_on, Ok(false)) {
            tap.put_back_at = now + PUT_BACK;
        }
        is_on.map(|is_on| !is_on)
    }

    fn attach_again_one(&mut self, Bypassed { ifindex, nic, .. }: &Bypassed) -> Result<(), LoadError> {
        let Some(tap) = self.taps.get_mut(ifindex) else { return Ok(()) };
        if Instant::now() < tap.put_back_at {
            return Ok(());
        }
        tap.put_back_at = Instant::now() + PUT_BACK;
        // What is still on is in the way of itself.
        let nothing = AttachedPrograms::nothing(tap.attached.mode);
        mem::replace(&mut tap.attached, nothing).remove()?;
        tap.attached = attach(&mut self.loaded, self.pins.as_ref(), *ifindex, &nic.tap, &mut self.way)?;
        Ok(())
    }
}
