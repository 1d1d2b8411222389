//! What the TAP devices count, from one RTM_GETSTATS dump: the numbers of sysfs, for a fraction of the system calls.
//!
//! The dump has all devices of the namespace. Asking for each TAP alone would be cheaper only where few devices are TAPs,
//! and there is little to save there.

use std::collections::HashMap;
use std::mem;

use rustix::io::Errno;

use super::rtnetlink::{Dump, Events, Links};
use super::{ReadReport, Reader, ReaderDef, ReaderError, Started, not_this_kernel};
use crate::host::Host;
use crate::model::{Batch, Health, Nic, NicSource, PartHealth, TapReading, VmSet};

pub(super) const DEF: ReaderDef = ReaderDef {
    name: "tap_netlink",
    help: "bytes, packets, errors and drops of each TAP, from one RTM_GETSTATS dump per tick",
    configure: |section| {
        section.no_options()?;
        Ok(Box::new(|host, _| start(host)))
    },
};

/// While devices come and go a dump may lack some; what a few dumps do not have is left to sysfs.
const DUMPS: usize = 3;

fn start(host: &Host) -> Started {
    if let Some(health) = not_this_kernel(host) {
        return Started::Not(health);
    }
    let mut links = match Links::open() {
        Ok(links) => links,
        Err(error) => return Started::Not(health(&error)),
    };
    // Tried, not inferred from the version. What may pass is for the ticks to tell.
    match links.stats(|_, _| ()) {
        Err(error) if is_unsupported(&error) => Started::Not(health(&error)),
        _ => match Events::open() {
            Ok(events) => Started::Running(Box::new(TapNetlink::new(links, events))),
            Err(source) => {
                Started::Not(health(&ReaderError::Netlink { operation: "listen for changes", source }))
            }
        },
    }
}

fn health(error: &ReaderError) -> PartHealth {
    let state = if is_unsupported(error) { Health::Unsupported } else { Health::Failed };
    PartHealth::new(state, format!("{error} (RTM_GETSTATS needs Linux 4.7)")).with_errno(error.errno())
}

/// The kernel is too old, or whoever started the daemon allows it no netlink.
fn is_unsupported(error: &ReaderError) -> bool {
    let errno = error.errno().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT | Errno::PERM | Errno::ACCESS)
    )
}

#[derive(Debug)]
struct TapNetlink {
    links: Links,
    events: Events,
    /// Which devices were read in this tick and in the one before.
    read: HashMap<Nic, u32>,
    read_before: HashMap<Nic, u32>,
}

impl TapNetlink {
    fn new(links: Links, events: Events) -> Self {
        Self { links, events, read: HashMap::new(), read_before: HashMap::new() }
    }

    fn read_all(&mut self, vms: &VmSet, batch: &mut Batch) -> Result<(), ReaderError> {
        // By the name first: the counters then are of the device that had it, whatever happens to the name meanwhile.
        let mut missing = self.links.find(vms)?;
        for _ in 0..DUMPS {
            if missing.is_empty() {
                break;
            }
            let dump = self.links.stats(|ifindex, stats| {
                if let Some(nic) = missing.remove(&ifindex) {
                    batch.taps.insert(nic.clone(), TapReading { ifindex, source: NicSource::Netlink, stats });
                }
            })?;
            if dump == Dump::Complete {
                break;
            }
        }
        Ok(())
    }

    /// Devices that have come and gone since the last tick: what they had counted at their end is all there is of them.
    fn read_short_lived(&mut self, vms: &VmSet, batch: &mut Batch) {
        self.take_events();
        for nic in vms.local_nics() {
            if !batch.taps.contains_key(nic)
                && let Some((ifindex, stats)) = self.events.last_counters(&nic.tap)
                && self.read.get(nic) != Some(&ifindex)
            {
                batch.taps.insert(nic.clone(), TapReading { ifindex, source: NicSource::Netlink, stats });
            }
        }
    }

    /// The devices that are there although nobody holds them: a VM's process may end before them, or without them.
    fn read_left(&mut self, leaving: &VmSet, batch: &mut Batch) -> Result<(), ReaderError> {
        let mut left = HashMap::new();
        for nic in leaving.local_nics() {
            if let Some(ifindex) = self.links.index_of(&nic.tap)?
                && self.read_before.get(nic) == Some(&ifindex)
            {
                left.insert(ifindex, nic);
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        self.links.stats(|ifindex, stats| {
            if let Some(nic) = left.remove(&ifindex) {
                batch.taps.insert(nic.clone(), TapReading { ifindex, source: NicSource::Netlink, stats });
            }
        })?;
        Ok(())
    }

    fn take_events(&mut self) {
        match self.events.take() {
            Ok(false) => {}
            Ok(true) => tracing::warn!("too many devices changed at once: some last counters are lost"),
            Err(error) => tracing::warn!("cannot listen for changes of devices: {error}"),
        }
    }
}

impl Reader for TapNetlink {
    /// A device that is not there is not reported: `tap_sysfs`, which reads after this, reports what nobody could read.
    fn read(&mut self, vms: &VmSet, batch: &mut Batch) -> ReadReport {
        let mut report = ReadReport::default();
        self.events.begin_round();
        if let Err(error) = self.read_all(vms, batch) {
            report.error(error);
        }
        self.read_short_lived(vms, batch);
        let read = batch.taps.iter().map(|(nic, reading)| (nic.clone(), reading.ifindex)).collect();
        self.read_before = mem::replace(&mut self.read, read);
        report.items = batch.taps.len();
        report
    }

    fn last_words(&mut self, leaving: &VmSet, batch: &mut Batch) {
        if let Err(error) = self.read_left(leaving, batch) {
            tracing::warn!("cannot read what VMs have left: {error}");
        }
        self.take_events();
        for nic in leaving.local_nics() {
            let last = self.events.last_counters(&nic.tap);
            if let Some((ifindex, stats)) = last.filter(|last| self.read_before.get(nic) == Some(&last.0)) {
                batch.taps.insert(nic.clone(), TapReading { ifindex, source: NicSource::Netlink, stats });
            }
        }
    }
}
