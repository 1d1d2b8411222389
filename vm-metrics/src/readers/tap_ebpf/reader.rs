//! The reader: follows the TAPs of each tick, then reads their counters.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::attach::{AttachError, Attached, tcx};
use super::load::{LoadError, Loaded};
use super::slots::Slots;
use crate::model::{AttachMode, Batch, EbpfReading, Nic, VmSet};
use crate::readers::rtnetlink::Links;
use crate::readers::{ReadReport, Reader, ReaderError};

/// Attaching one TAP by TCX takes about 20 ms, during which the kernel holds its lock on network configuration. So a tick
/// attaches no longer than this, and the next tick goes on.
const ATTACH_BUDGET: Duration = Duration::from_millis(200);

/// A TAP that refused the programs is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);

pub(super) struct TapEbpf {
    loaded: Loaded,
    slots: Slots,
    links: Links,
    taps: HashMap<u32, Tap>,
    refused: HashMap<u32, Refusal>,
}

/// A TAP with the programs on it.
struct Tap {
    slot: u32,
    attached: Attached,
}

struct Refusal {
    error: AttachError,
    retry_at: Instant,
}

impl TapEbpf {
    pub(super) fn new(max_nics: u32) -> Result<Self, LoadError> {
        let loaded = Loaded::new(max_nics)?;
        let links = Links::open().map_err(LoadError::Links)?;
        let slots = Slots::new(loaded.counters.slots());
        Ok(Self { loaded, slots, links, taps: HashMap::new(), refused: HashMap::new() })
    }

    fn detach_all_but(&mut self, present: &HashMap<u32, &Nic>, report: &mut ReadReport) {
        self.refused.retain(|ifindex, _| present.contains_key(ifindex));
        let gone: Vec<u32> =
            self.taps.keys().filter(|ifindex| !present.contains_key(ifindex)).copied().collect();
        for ifindex in gone {
            let Some(Tap { slot, attached }) = self.taps.remove(&ifindex) else { continue };
            drop(attached);
            if let Err(error) = self.slots.release(&mut self.loaded, ifindex, slot) {
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
            match self.attach(*ifindex, &nic.tap) {
                Ok(tap) => {
                    self.refused.remove(ifindex);
                    self.taps.insert(*ifindex, tap);
                }
                Err(error) => {
                    self.refused.insert(*ifindex, Refusal { error, retry_at: began + RETRY });
                }
            }
        }
    }

    fn attach(&mut self, ifindex: u32, device: &str) -> Result<Tap, AttachError> {
        let failed = |error: LoadError| AttachError::new(device, error);
        let slot = self.slots.assign(&mut self.loaded, ifindex).map_err(failed)?;
        let slot = slot.ok_or_else(|| failed(LoadError::NoSlot))?;
        let attached = tcx(&mut self.loaded, device).and_then(|attached| {
            // The programs were attached by name: to another device, if the name changed hands meanwhile.
            match self.links.index_of(device) {
                Ok(Some(now)) if now == ifindex => Ok(attached),
                _ => Err(failed(LoadError::DeviceChanged)),
            }
        });
        match attached {
            Ok(attached) => Ok(Tap { slot, attached }),
            Err(error) => {
                self.slots.release(&mut self.loaded, ifindex, slot).map_err(failed)?;
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
        self.detach_all_but(&present, &mut report);
        self.attach_new(&present);
        for (ifindex, nic) in present {
            if let Some(tap) = self.taps.get(&ifindex) {
                let counters = self.loaded.counters.read(tap.slot);
                batch.ebpf.insert(nic.clone(), EbpfReading { ifindex, attach: AttachMode::Tcx, counters });
                report.items += 1;
            } else if let Some(refusal) = self.refused.get(&ifindex) {
                report.error(ReaderError::from(&refusal.error));
            }
        }
        self.loaded.flush_log();
        report
    }
}
