//! The reader: follows the TAPs of each tick, then reads their counters.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use vm_metrics_common::Counters;

use super::attach::{Attached, adopt, attach, try_out};
use super::error::{AttachError, LoadError};
use super::load::Loaded;
use super::pins::Pins;
use super::slots::Slots;
use super::{Options, Way};
use crate::model::{Batch, EbpfReading, Leaving, Nic, TapReading, VmSet};
use crate::readers::rtnetlink::Links;
use crate::readers::{ReadReport, Reader, ReaderError};

/// Attaching one TAP by TCX takes about 20 ms, and so does detaching it; meanwhile the kernel holds its lock on network
/// configuration. So a tick does either no longer than this, and the next tick goes on.
const BUDGET: Duration = Duration::from_millis(200);

/// A TAP that refused the programs is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);

/// Programs that stay blind are put back once in this time.
const PUT_BACK: Duration = Duration::from_secs(60);

/// Ticks in which the programs may be blind before they are taken for lost.
const MAX_BLIND_TICKS: u32 = 1;

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
    /// Packets that the device had received and that the programs had counted at the last tick.
    seen: (u64, u64),
    blind_ticks: u32,
    /// Before this they are not put back once more: an XDP program that keeps all frames to itself makes them blind too.
    put_back_at: Instant,
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
                    self.taps.insert(ifindex, Tap::new(Nic::local(device), slot, attached));
                }
                None => self.slots.release(&mut self.loaded, ifindex, slot)?,
            }
        }
        if let Some(pins) = &self.pins {
            let collected = pins.collect_links(|ifindex| self.taps.contains_key(&ifindex));
            if let Err(error) = collected {
                tracing::warn!("{error}");
            }
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
            if now.elapsed() > BUDGET {
                break;
            }
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
            if began.elapsed() > BUDGET {
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

    /// Puts the programs back where somebody has taken them off; they go on in the same slot.
    fn attach_again(&mut self, ifindex: u32, nic: &Nic) -> Result<(), LoadError> {
        let Some(tap) = self.taps.get_mut(&ifindex) else { return Ok(()) };
        if Instant::now() < tap.put_back_at {
            return Ok(());
        }
        tap.put_back_at = Instant::now() + PUT_BACK;
        let pins = self.pins.as_ref();
        let again = attach(&mut self.loaded, pins, ifindex, &nic.tap, &mut self.way)?;
        tap.attached.forget();
        tap.attached = again;
        Ok(())
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
            Ok(attached) => Ok(Tap::new(nic.clone(), slot, attached)),
            Err(error) => {
                self.slots.release(&mut self.loaded, ifindex, slot)?;
                Err(error)
            }
        }
    }
}

impl Tap {
    fn new(nic: Nic, slot: u32, attached: Attached) -> Self {
        let now = Instant::now();
        Self { nic, slot, attached, wanted: now, seen: (0, 0), blind_ticks: 0, put_back_at: now }
    }

    /// Whether somebody has taken the programs off: the device goes on receiving, for more than one tick, and they do not
    /// count. The device was read before the counters.
    fn is_lost(&mut self, device: Option<&TapReading>, counters: &Counters) -> bool {
        let Some(device) = device else { return false };
        let now = (device.stats.rx_packets, counters.ingress.packets);
        let (received, counted) = std::mem::replace(&mut self.seen, now);
        self.blind_ticks = if now.0 > received && now.1 == counted { self.blind_ticks + 1 } else { 0 };
        self.blind_ticks > MAX_BLIND_TICKS
    }
}

/// The reader of those who only want to know whether it would work: it attaches to no TAP, where it could disturb a
/// daemon.
#[derive(Debug)]
pub(super) struct Trial;

impl Trial {
    pub(super) fn new(options: &Options) -> Result<Self, LoadError> {
        let mut loaded = Loaded::new(options.max_nics, None)?;
        try_out(&mut loaded, options.attach).transpose()?;
        Ok(Self)
    }
}

impl Reader for Trial {
    fn read(&mut self, _: &VmSet, _: &mut Batch) -> ReadReport {
        ReadReport::default()
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
        let (mut waiting, mut lost) = (0, Vec::new());
        for (ifindex, nic) in present {
            if let Some(tap) = self.taps.get_mut(&ifindex) {
                let counters = self.loaded.counters.read(tap.slot);
                if tap.is_lost(batch.taps.get(nic), &counters) {
                    lost.push((ifindex, nic));
                }
                batch.ebpf.insert(nic.clone(), EbpfReading { ifindex, attach: tap.attached.mode, counters });
                report.items += 1;
            } else if let Some(refusal) = self.refused.get(&ifindex) {
                report.error(ReaderError::from(&refusal.error));
            } else {
                waiting += 1;
            }
        }
        if waiting > 0 {
            report.error(ReaderError::Waiting { taps: waiting });
        }
        for (ifindex, nic) in lost {
            report.error(ReaderError::Lost { device: nic.tap.clone() });
            if let Err(error) = self.attach_again(ifindex, nic) {
                report.error(ReaderError::from(&AttachError::new(&nic.tap, error)));
            }
        }
        self.loaded.flush_log();
        report
    }

    fn last_words(&mut self, leaving: &Leaving, batch: &mut Batch) {
        for nic in leaving.vms.local_nics() {
            if batch.ebpf.contains_key(nic) {
                continue;
            }
            // Gone with its device, or still there but no VM's.
            let kept = self.taps.iter().find(|(_, tap)| tap.nic == *nic).map(|(ifindex, tap)| EbpfReading {
                ifindex: *ifindex,
                attach: tap.attached.mode,
                counters: self.loaded.counters.read(tap.slot),
            });
            if let Some(reading) = self.last_words.remove(nic).or(kept) {
                batch.ebpf.insert(nic.clone(), reading);
            }
        }
    }
}
