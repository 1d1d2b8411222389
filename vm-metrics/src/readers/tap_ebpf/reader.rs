//! The reader: follows the TAPs of each tick, then reads their counters.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::attach::{Attached, adopt, attach, try_out};
use super::error::{AttachError, LoadError};
use super::load::Loaded;
use super::pins::Pins;
use super::slots::Slots;
use super::{Options, Way};
use crate::model::{Batch, EbpfReading, Nic, VmSet};
use crate::readers::rtnetlink::Links;
use crate::readers::{ReadReport, Reader, ReaderError};

/// Attaching one TAP by TCX takes about 20 ms, during which the kernel holds its lock on network configuration. So a tick
/// attaches no longer than this, and the next tick goes on.
const ATTACH_BUDGET: Duration = Duration::from_millis(200);

/// A TAP that refused the programs is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);

/// A TAP that is there but that no VM has any more keeps the programs for this time: the source that knows its VM may
/// have failed for a moment, or may not have found it yet after a start.
const UNWANTED: Duration = Duration::from_secs(60);

pub(super) struct TapEbpf {
    loaded: Loaded,
    pins: Option<Pins>,
    way: Way,
    slots: Slots,
    links: Links,
    taps: HashMap<u32, Tap>,
    refused: HashMap<u32, Refusal>,
    /// Of the TAPs that went away in this tick.
    last_words: HashMap<Nic, EbpfReading>,
}

/// A TAP with the programs on it.
struct Tap {
    /// Its name at the last tick.
    nic: Nic,
    slot: u32,
    attached: Attached,
    wanted: Instant,
}

struct Refusal {
    error: AttachError,
    retry_at: Instant,
}

impl TapEbpf {
    /// Loads the programs; with pins, takes over what the daemon before this one has left.
    pub(super) fn new(options: &Options, pins: Option<Pins>) -> Result<Self, LoadError> {
        let mut loaded = Loaded::new(options.max_nics, pins.as_ref())?;
        let links = Links::open().map_err(LoadError::Links)?;
        let (slots, left) = Slots::restore(&mut loaded)?;
        let mut reader = Self {
            loaded,
            pins,
            way: options.attach,
            slots,
            links,
            taps: HashMap::new(),
            refused: HashMap::new(),
            last_words: HashMap::new(),
        };
        reader.adopt_all(left)?;
        Ok(reader)
    }

    /// Finds out whether the programs can be attached, without a TAP.
    pub(super) fn try_out(&mut self) -> Result<(), LoadError> {
        try_out(&mut self.loaded, self.way).transpose().map(|_| ())
    }

    fn adopt_all(&mut self, left: HashMap<u32, u32>) -> Result<(), LoadError> {
        for (ifindex, slot) in left {
            let adopted = match (&self.pins, self.links.name_of(ifindex)) {
                (Some(pins), Some(device)) => {
                    adopt(&mut self.loaded, pins, ifindex, &device).map(|attached| (attached, device))
                }
                _ => None,
            };
            match adopted {
                Some((attached, device)) => {
                    let tap = Tap { nic: Nic::local(device), slot, attached, wanted: Instant::now() };
                    self.taps.insert(ifindex, tap);
                }
                None => self.slots.release(&mut self.loaded, ifindex, slot)?,
            }
        }
        if let Some(pins) = &self.pins {
            pins.collect_links(|ifindex| self.taps.contains_key(&ifindex))?;
        }
        Ok(())
    }

    /// Takes the programs off the TAPs that are gone, or that no VM has had for a while.
    fn detach_unwanted(&mut self, present: &HashMap<u32, &Nic>, report: &mut ReadReport) {
        self.refused.retain(|ifindex, _| present.contains_key(ifindex));
        let now = Instant::now();
        for (ifindex, nic) in present {
            if let Some(tap) = self.taps.get_mut(ifindex) {
                tap.wanted = now;
                if tap.nic != **nic {
                    tap.nic = (*nic).clone();
                }
            }
        }
        let unwanted = |(ifindex, tap): (&u32, &Tap)| {
            let keep =
                tap.wanted == now || (now - tap.wanted < UNWANTED && self.links.name_of(*ifindex).is_some());
            (!keep).then_some(*ifindex)
        };
        let unwanted: Vec<u32> = self.taps.iter().filter_map(unwanted).collect();
        for ifindex in unwanted {
            let Some(Tap { nic, slot, attached, .. }) = self.taps.remove(&ifindex) else { continue };
            // The counters outlive the device.
            let counters = self.loaded.counters.read(slot);
            self.last_words.insert(nic, EbpfReading { ifindex, attach: attached.mode, counters });
            let removed =
                attached.remove().and_then(|()| self.slots.release(&mut self.loaded, ifindex, slot));
            if let Err(error) = removed {
                report.error(ReaderError::from(&AttachError::new(&format!("interface {ifindex}"), error)));
            }
        }
    }

    fn attach_new(&mut self, present: &HashMap<u32, &Nic>) {
        let began = Instant::now();
        for (ifindex, nic) in present {
            let rests = self.refused.get(ifindex).is_some_and(|refusal| began < refusal.retry_at);
            if rests || self.taps.contains_key(ifindex) {
                continue;
            }
            if began.elapsed() > ATTACH_BUDGET {
                break;
            }
            match self.attach(*ifindex, nic) {
                Ok(tap) => {
                    self.refused.remove(ifindex);
                    self.taps.insert(*ifindex, tap);
                }
                Err(error) => {
                    let error = AttachError::new(&nic.tap, error);
                    self.refused.insert(*ifindex, Refusal { error, retry_at: began + RETRY });
                }
            }
        }
    }

    fn attach(&mut self, ifindex: u32, nic: &Nic) -> Result<Tap, LoadError> {
        let device = nic.tap.as_str();
        let slot = self.slots.assign(&mut self.loaded, ifindex)?.ok_or(LoadError::NoSlot)?;
        let pins = self.pins.as_ref();
        let attached = attach(&mut self.loaded, pins, ifindex, device, &mut self.way).and_then(|attached| {
            // The programs were attached by name: to another device, if the name changed hands meanwhile.
            if matches!(self.links.index_of(device), Ok(Some(now)) if now == ifindex) {
                return Ok(attached);
            }
            attached.remove()?;
            Err(LoadError::DeviceChanged)
        });
        match attached {
            Ok(attached) => Ok(Tap { nic: nic.clone(), slot, attached, wanted: Instant::now() }),
            Err(error) => {
                self.slots.release(&mut self.loaded, ifindex, slot)?;
                Err(error)
            }
        }
    }
}

impl Reader for TapEbpf {
    fn read(&mut self, vms: &VmSet, batch: &mut Batch) -> ReadReport {
        let mut report = ReadReport::default();
        let present = match self.links.find(vms) {
            Ok(present) => present,
            // Which TAPs are there is not known: the programs stay where they are, and go on counting.
            Err(error) => {
                report.error(error);
                return report;
            }
        };
        self.last_words.clear();
        self.detach_unwanted(&present, &mut report);
        self.attach_new(&present);
        for (ifindex, nic) in present {
            if let Some(tap) = self.taps.get(&ifindex) {
                let counters = self.loaded.counters.read(tap.slot);
                batch.ebpf.insert(nic.clone(), EbpfReading { ifindex, attach: tap.attached.mode, counters });
                report.items += 1;
            } else if let Some(refusal) = self.refused.get(&ifindex) {
                report.error(ReaderError::from(&refusal.error));
            }
        }
        self.loaded.flush_log();
        report
    }

    fn last_words(&mut self, leaving: &VmSet, batch: &mut Batch) {
        for nic in leaving.local_nics() {
            // Gone with its device, or still there but no VM's.
            let kept = self.taps.iter().find(|(_, tap)| tap.nic == *nic).map(|(ifindex, tap)| EbpfReading {
                ifindex: *ifindex,
                attach: tap.attached.mode,
                counters: self.loaded.counters.read(tap.slot),
            });
            if let Some(reading) = self.last_words.remove(nic).or(kept) {
                batch.ebpf.entry(nic.clone()).or_insert(reading);
            }
        }
    }
}
