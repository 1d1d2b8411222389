//! Programs that an earlier daemon has left are taken over.

use std::collections::HashMap;

use super::super::error::LoadError;
use super::super::hook::attach::adopt;
use super::super::hook::attached::AttachedPrograms;
use super::super::tap::Tap;
use super::ProgramSet;
use crate::model::DeviceId;
use crate::net::rtnetlink::Links;

impl ProgramSet {
    /// Takes over what is left on the interfaces of these slots. What is not there any more gives its slot back.
    pub(crate) fn adopt_all(&mut self, left: HashMap<u32, u32>, links: &Links) -> Result<(), LoadError> {
        for (ifindex, slot) in left {
            match self.adopt_one(ifindex, links) {
                Ok(Some(attached)) => drop(self.taps.insert(ifindex, Tap::new(None, slot, attached))),
                Ok(None) => self.slots.release(&mut self.loaded, ifindex, slot)?,
                // It may still count there.
                Err(error) => {
                    tracing::warn!("interface {ifindex}: {}", error.in_one_line());
                    self.unverified.insert(ifindex, slot);
                }
            }
        }
        if let Some(pins) = &self.pins {
            let is_kept =
                |ifindex| self.taps.contains_key(&ifindex) || self.unverified.contains_key(&ifindex);
            if let Err(error) = pins.collect_links(is_kept) {
                tracing::warn!("{error}");
            }
        }
        Ok(())
    }

    /// `None` where the device is gone, or nothing is left on it.
    fn adopt_one(&mut self, ifindex: u32, links: &Links) -> Result<Option<AttachedPrograms>, LoadError> {
        let device = links.name_of(ifindex).map_err(LoadError::Links)?;
        let (Some(pins), Some(device)) = (&self.pins, device) else { return Ok(None) };
        adopt(&mut self.loaded, pins, ifindex, &device)
    }

    /// Gives up what an earlier daemon has left on an interface: it counts there no more.
    pub(crate) fn release_unverified(&mut self, ifindex: u32) -> Result<(), LoadError> {
        let Some(&slot) = self.unverified.get(&ifindex) else { return Ok(()) };
        if let Some(pins) = &self.pins {
            pins.remove_links(ifindex)?;
        }
        self.unverified.remove(&ifindex);
        self.slots.release(&mut self.loaded, ifindex, slot)
    }

    /// Asks once more about what an earlier daemon has left on an interface.
    pub(crate) fn adopt_unverified(
        &mut self,
        device: DeviceId,
        name: &str,
    ) -> Result<Option<Tap>, LoadError> {
        let ifindex = device.ifindex;
        let (Some(&slot), Some(pins)) = (self.unverified.get(&ifindex), &self.pins) else { return Ok(None) };
        let Some(attached) = adopt(&mut self.loaded, pins, ifindex, name)? else {
            return self.release_unverified(ifindex).map(|()| None);
        };
        self.unverified.remove(&ifindex);
        Ok(Some(Tap::new(Some(device), slot, attached)))
    }
}
