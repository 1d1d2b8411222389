//! Attaches programs again that another program removed or bypasses.

use std::mem;
use std::time::{Duration, Instant};

use super::super::direction::Direction;
use super::super::error::{AttachError, LoadError};
use super::super::hook::attach::{attach, is_on};
use super::super::hook::attached::AttachedPrograms;
use super::ProgramSet;
use crate::model::Nic;
use crate::readers::{ReadReport, ReaderError};

/// Programs that stay bypassed are attached again once in this time, and a doubt about egress is verified once.
const REATTACH: Duration = Duration::from_secs(60);

/// A TAP on which one of the programs does not see what passes.
pub(crate) struct Bypassed<'v> {
    pub(crate) ifindex: u32,
    pub(crate) nic: &'v Nic,
    pub(crate) direction: Direction,
}

impl ProgramSet {
    /// Puts the programs back where somebody has taken them off, or ended the chain before them; they go on in the same
    /// slot.
    pub(crate) fn reattach(&mut self, bypassed: &[Bypassed], report: &mut ReadReport) {
        for bypassed in bypassed {
            match self.is_off(bypassed) {
                Ok(true) => {}
                Ok(false) => continue,
                // What may still be there is not taken off.
                Err(error) => {
                    report.error(ReaderError::from(&AttachError::new(&bypassed.nic.tap, error)));
                    continue;
                }
            }
            report.error(ReaderError::Lost { device: bypassed.nic.tap.clone() });
            if let Err(error) = self.reattach_one(bypassed) {
                report.error(ReaderError::from(&AttachError::new(&bypassed.nic.tap, error)));
            }
        }
    }

    fn is_off(&mut self, Bypassed { ifindex, nic, direction }: &Bypassed) -> Result<bool, LoadError> {
        let Some(tap) = self.taps.get_mut(ifindex) else { return Ok(false) };
        let now = Instant::now();
        if *direction == Direction::Ingress {
            return Ok(true);
        }
        if now < tap.verify_egress_at {
            return Ok(false);
        }
        let is_on = is_on(&tap.attached, &mut self.loaded, *direction, *ifindex, &nic.tap);
        if !matches!(is_on, Ok(false)) {
            tap.verify_egress_at = now + REATTACH;
        }
        is_on.map(|is_on| !is_on)
    }

    fn reattach_one(&mut self, Bypassed { ifindex, nic, .. }: &Bypassed) -> Result<(), LoadError> {
        let Some(tap) = self.taps.get_mut(ifindex) else { return Ok(()) };
        if Instant::now() < tap.reattach_at {
            return Ok(());
        }
        tap.reattach_at = Instant::now() + REATTACH;
        // What is still on is in the way of itself.
        let nothing = AttachedPrograms::nothing(tap.attached.mode);
        mem::replace(&mut tap.attached, nothing).remove()?;
        tap.attached = attach(&mut self.loaded, self.pins.as_ref(), *ifindex, &nic.tap, &mut self.way)?;
        Ok(())
    }
}
