//! Loads the programs for one network namespace, as its TAPs need slots.

use std::collections::HashSet;
use std::time::Instant;

use super::super::budget::Budget;
use super::super::error::LoadError;
use super::super::program_set::ProgramSet;
use super::super::programs::load::{Loader, Size};
use super::super::programs::pins::{LoadId, Pins};
use super::{AttachPlan, NetnsPrograms, RETRY, inside};
use crate::net::rtnetlink::Links;

/// Slots of the first set in a foreign namespace. Each further set has twice as many.
const FIRST_NICS: u32 = 4;

impl NetnsPrograms {
    /// Takes over what a daemon before this one has left here.
    pub(crate) fn open(&mut self, loader: &mut Loader, links: &Links, budget: &mut Budget) {
        if self.is_open || self.rests() {
            return;
        }
        loop {
            let load = self.next_load();
            let opened = match self.is_pinned(load) {
                Ok(false) => {
                    self.is_open = true;
                    return;
                }
                Ok(true) => budget.spend(|| self.load(loader, links, FIRST_NICS, load)),
                Err(error) => Some(Err(error)),
            };
            match opened {
                Some(Ok(())) => {}
                None => return,
                Some(Err(error)) => {
                    self.refused = Some((Instant::now() + RETRY, error));
                    return;
                }
            }
        }
    }

    /// Loads one more set, for the unassigned TAPs.
    pub(crate) fn make_room(
        &mut self,
        plan: &mut AttachPlan<'_>,
        loader: &mut Loader,
        links: &Links,
        budget: &mut Budget,
    ) {
        if plan.unassigned.is_empty() || !self.is_open || self.rests() {
            return;
        }
        let twice = self.sets.last().map_or(FIRST_NICS as usize, |last| 2 * last.slots());
        let slots: usize = self.sets.iter().map(ProgramSet::slots).sum();
        let left = (self.max_nics as usize).saturating_sub(slots);
        let nics = plan.unassigned.len().next_power_of_two().max(twice).min(left);
        let load = self.next_load();
        let made = budget.spend(|| self.load(loader, links, u32::try_from(nics).unwrap_or(FIRST_NICS), load));
        match made {
            None => {}
            Some(Ok(())) => {
                let unassigned = std::mem::take(&mut plan.unassigned);
                if let Some(last) = self.sets.last_mut() {
                    let changes = last.changes(&unassigned, &HashSet::new(), links);
                    plan.shares.push((unassigned, changes));
                }
            }
            Some(Err(error)) => self.refused = Some((Instant::now() + RETRY, error)),
        }
    }

    /// Whether a daemon before this one has left a load.
    fn is_pinned(&self, load: LoadId) -> Result<bool, LoadError> {
        Ok(self.pin_dir.as_ref().map_or(Ok(false), |pin_dir| load.is_pinned(pin_dir))?)
    }

    fn next_load(&self) -> LoadId {
        LoadId { netns: self.netns, of: Some(self.daemon), index: self.sets.len() }
    }

    /// With pins, what a daemon before this one has left goes on in it.
    fn load(&mut self, loader: &mut Loader, links: &Links, nics: u32, load: LoadId) -> Result<(), LoadError> {
        let was_pinned = self.is_pinned(load)?;
        let pins = self.pin_dir.as_ref().map(|dir| Pins::open(dir, load, false)).transpose()?;
        let Self { namespace, way, .. } = self;
        let size = Size::of_other_namespace(nics);
        let new = || ProgramSet::new(loader, size, *way, pins, links);
        match inside(namespace.as_deref(), new).map_err(LoadError::Enter).flatten() {
            Ok(set) => self.sets.push(set),
            Err(error) => {
                // Half a load is of no use to anybody.
                if let Some(pin_dir) = self.pin_dir.as_ref().filter(|_| !was_pinned) {
                    load.discard(pin_dir)?;
                }
                return Err(error);
            }
        }
        Ok(())
    }
}
