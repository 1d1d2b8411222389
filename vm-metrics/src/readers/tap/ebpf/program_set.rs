//! One load of the programs, with its maps and the TAPs that it counts.
//!
//! The callers of attach and detach are threads in the network namespace of the TAPs.

mod adoption;
mod changes;
mod reattach;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

pub(crate) use self::changes::Changes;
use self::changes::NewTap;
pub(crate) use self::reattach::Bypassed;
use super::budget::Budget;
use super::error::{AttachError, LoadError};
use super::hook::attach::attach;
use super::options::AttachMethod;
use super::present::{Present, PresentTap};
use super::programs::load::{LoadedPrograms, Loader, Size};
use super::programs::pins::Pins;
use super::programs::slots::Slots;
use super::tap::Tap;
use crate::model::{Batch, DeviceId, EbpfReading, Nic};
use crate::net::rtnetlink::Links;
use crate::readers::{ReadReport, ReaderError};

/// A TAP that refused the programs is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);

/// A TAP without a VM keeps the programs for this time. The source of its VM may have failed for a moment, or may not have
/// found it yet after a start.
const UNWANTED: Duration = Duration::from_secs(60);

pub(crate) struct ProgramSet {
    loaded: LoadedPrograms,
    pins: Option<Pins>,
    way: AttachMethod,
    slots: Slots,
    taps: HashMap<u32, Tap>,
    /// The slots of interfaces on which programs of an earlier daemon may still count: the kernel has not told.
    unverified: HashMap<u32, u32>,
    refused: HashMap<u32, Refusal>,
    /// Of the TAPs that went away in this tick and in the last one: what goes in the middle of a tick is missed in the next.
    final_readings: [HashMap<DeviceId, EbpfReading>; 2],
}

struct Refusal {
    error: AttachError,
    lacks_slot: bool,
    retry_at: Instant,
}

impl ProgramSet {
    /// Loads the programs; with pins, takes over what the daemon before this one has left.
    pub(crate) fn new(
        loader: &mut Loader,
        size: Size,
        way: AttachMethod,
        pins: Option<Pins>,
        links: &Links,
    ) -> Result<Self, LoadError> {
        let mut loaded = loader.load(size, pins.as_ref())?;
        let (slots, left) = Slots::restore(&mut loaded)?;
        let (taps, unverified, refused) = Default::default();
        let final_readings = Default::default();
        let mut set = Self { loaded, pins, way, slots, taps, unverified, refused, final_readings };
        set.adopt_all(left, links)?;
        Ok(set)
    }

    /// Takes the programs off all TAPs, and leaves nothing for a daemon after this one. False when there was not the time.
    pub(crate) fn close(&mut self, budget: &mut Budget) -> bool {
        let warn = |error: LoadError| tracing::warn!("{}", error.in_one_line());
        while let Some(&ifindex) = self.taps.keys().next() {
            let removed = budget.spend(|| self.taps.remove(&ifindex).map(|tap| tap.attached.remove()));
            match removed {
                None => return false,
                Some(removed) => removed.into_iter().filter_map(Result::err).for_each(warn),
            }
        }
        if let Some(Err(error)) = self.pins.take().map(Pins::remove) {
            warn(error.into());
        }
        true
    }

    /// Lets go of everything without a word to the kernel.
    pub(crate) fn forget(mut self) {
        self.taps.values_mut().for_each(|tap| tap.attached.forget());
    }

    /// How many TAPs it can count.
    pub(crate) fn slots(&self) -> usize {
        self.loaded.counters.slots() as usize
    }

    /// How many more.
    pub(crate) fn room(&self) -> usize {
        self.slots.free()
    }

    /// Whether this interface is on its books.
    pub(crate) fn knows(&self, ifindex: u32) -> bool {
        // One for which there was no slot may find one elsewhere.
        let is_held = self.counts(ifindex) || self.unverified.contains_key(&ifindex);
        is_held || self.refused.get(&ifindex).is_some_and(|refusal| !refusal.lacks_slot)
    }

    /// Whether the programs are on this interface.
    pub(crate) fn counts(&self, ifindex: u32) -> bool {
        self.taps.contains_key(&ifindex)
    }

    /// Those that the programs are on, by interface index.
    pub(crate) fn taps(&self) -> impl Iterator<Item = (u32, Option<DeviceId>)> {
        self.taps.iter().map(|(ifindex, tap)| (*ifindex, tap.device))
    }

    /// Which TAPs are gone, or were no VM's for a while, and which are new.
    pub(crate) fn changes(&mut self, present: &Present, deleted: &HashSet<u32>, links: &Links) -> Changes {
        self.final_readings.swap(0, 1);
        self.final_readings[0].clear();
        self.refused.retain(|ifindex, _| present.contains_key(ifindex));
        let now = Instant::now();
        for (ifindex, present) in present {
            // What has the index of a deleted device is another one: its programs went with it.
            if let Some(tap) = self.taps.get_mut(ifindex).filter(|_| !deleted.contains(ifindex)) {
                (tap.wanted, tap.device) = (now, Some(present.device));
            }
        }
        // What the kernel does not say is no end.
        let is_absent = |ifindex| matches!(links.name_of(ifindex), Ok(None));
        let is_gone = |(ifindex, tap): &(&u32, &Tap)| {
            let is_unwanted = tap.wanted != now && now - tap.wanted >= UNWANTED;
            let is_there = tap.wanted == now || !is_absent(**ifindex);
            is_unwanted || !is_there || deleted.contains(ifindex)
        };
        let is_new = |ifindex: &u32| {
            let rests = self.refused.get(ifindex).is_some_and(|refusal| now < refusal.retry_at);
            !rests && (!self.taps.contains_key(ifindex) || deleted.contains(ifindex))
        };
        let is_over = |ifindex: &&u32| deleted.contains(ifindex) || is_absent(**ifindex);
        let unverified = self.unverified.keys().filter(is_over);
        Changes {
            gone: self
                .taps
                .iter()
                .filter(is_gone)
                .map(|(ifindex, _)| ifindex)
                .chain(unverified)
                .copied()
                .collect(),
            new: present
                .iter()
                .filter(|(ifindex, _)| is_new(ifindex))
                .map(|(_, &PresentTap { at, device, nic })| NewTap { at, device, nic: nic.clone() })
                .collect(),
        }
    }

    pub(crate) fn detach(&mut self, changes: &Changes, budget: &mut Budget, report: &mut ReadReport) {
        for ifindex in &changes.gone {
            if budget.spend(|| self.detach_one(*ifindex, report)).is_none() {
                break;
            }
        }
    }

    fn detach_one(&mut self, ifindex: u32, report: &mut ReadReport) {
        if let Err(error) = self.release_unverified(ifindex) {
            report.error(ReaderError::from(&AttachError::new(&format!("interface {ifindex}"), error)));
        }
        let Some(tap) = self.taps.remove(&ifindex) else { return };
        // The counters outlive the device.
        let reading = tap.complete(self.loaded.reading(tap.slot, tap.attached.mode));
        let Tap { device, slot, attached, .. } = tap;
        self.final_readings[0].extend(device.map(|device| (device, reading)));
        let removed = attached.remove().and_then(|()| self.slots.release(&mut self.loaded, ifindex, slot));
        if let Err(error) = removed {
            report.error(ReaderError::from(&AttachError::new(&format!("interface {ifindex}"), error)));
        }
    }

    /// Attaches to so many TAPs at most; says how many it has tried.
    pub(crate) fn attach(
        &mut self,
        changes: &Changes,
        links: &mut Links,
        budget: &mut Budget,
        at_most: usize,
    ) -> usize {
        let now = Instant::now();
        let rests = |ifindex: &u32| self.refused.get(ifindex).is_some_and(|refusal| now < refusal.retry_at);
        // One that is to be taken off first may have to wait for its turn.
        let is_free =
            |new: &&NewTap| !self.taps.contains_key(&new.device.ifindex) && !rests(&new.device.ifindex);
        let new: Vec<_> = changes.new.iter().filter(is_free).take(at_most).collect();
        for (at, NewTap { device, nic, .. }) in new.iter().enumerate() {
            let ifindex = device.ifindex;
            let Some(attached) = budget.spend(|| self.attach_one(*device, nic, links)) else {
                return at;
            };
            match attached {
                Ok(tap) => {
                    self.refused.remove(&ifindex);
                    self.taps.insert(ifindex, tap);
                }
                // The name means another device by now, which the next tick finds.
                Err(_) if !links.has_name(ifindex, &nic.tap) => {}
                Err(error) => {
                    let lacks_slot = matches!(error, LoadError::NoSlot);
                    // To ask once more costs little, and what counts meanwhile is not shown.
                    let rest = if self.unverified.contains_key(&ifindex) { Duration::ZERO } else { RETRY };
                    let (error, retry_at) = (AttachError::new(&nic.tap, error), Instant::now() + rest);
                    self.refused.insert(ifindex, Refusal { error, lacks_slot, retry_at });
                }
            }
        }
        new.len()
    }

    fn attach_one(&mut self, device: DeviceId, nic: &Nic, links: &mut Links) -> Result<Tap, LoadError> {
        let (ifindex, name) = (device.ifindex, nic.tap.as_str());
        if let Some(tap) = self.adopt_unverified(device, name)? {
            return Ok(tap);
        }
        let slot = self.slots.assign(&mut self.loaded, ifindex)?.ok_or(LoadError::NoSlot)?;
        let pins = self.pins.as_ref();
        let attached = attach(&mut self.loaded, pins, ifindex, name, &mut self.way).and_then(|attached| {
            // The programs were attached by name: to another device, if the name changed hands meanwhile.
            if links.has_name(ifindex, name) {
                return Ok(attached);
            }
            attached.remove()?;
            Err(LoadError::DeviceChanged)
        });
        match attached {
            Ok(attached) => Ok(Tap::new(Some(device), slot, attached).since_now()),
            Err(error) => {
                self.slots.release(&mut self.loaded, ifindex, slot)?;
                Err(error)
            }
        }
    }

    /// Reads the counters, and returns the TAPs on which a program is bypassed.
    pub(crate) fn read<'v>(
        &mut self,
        present: &Present<'v>,
        batch: &mut Batch,
        report: &mut ReadReport,
    ) -> Vec<Bypassed<'v>> {
        let mut bypassed = Vec::new();
        for (&ifindex, &PresentTap { at, nic, .. }) in present {
            if let Some(tap) = self.taps.get_mut(&ifindex) {
                let reading = self.loaded.reading(tap.slot, tap.attached.mode);
                let direction = tap.bypassed(batch.nics[at].tap.as_ref(), &reading.counters);
                bypassed.extend(direction.map(|direction| Bypassed { ifindex, nic, direction }));
                batch.nics[at].ebpf = Some(tap.complete(reading));
                report.items += 1;
            } else if let Some(refusal) = self.refused.get(&ifindex) {
                report.error(ReaderError::from(&refusal.error));
            } else {
                report.waiting += 1;
            }
        }
        self.loaded.flush_log();
        bypassed
    }

    /// What a TAP had counted that is gone with its device, or still there but no VM's.
    pub(crate) fn read_final(&self, device: DeviceId) -> Option<EbpfReading> {
        let gone = self.final_readings.iter().find_map(|tick| tick.get(&device));
        gone.copied().or_else(|| {
            let tap = self.taps.get(&device.ifindex).filter(|tap| tap.device == Some(device))?;
            Some(tap.complete(self.loaded.reading(tap.slot, tap.attached.mode)))
        })
    }
}
