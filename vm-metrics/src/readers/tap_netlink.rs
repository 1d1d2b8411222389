//! What the TAP devices count, from one RTM_GETSTATS dump: the numbers of sysfs, for a fraction of the system calls.
//!
//! The dump has all devices of the namespace. Asking for each TAP alone would be cheaper only where few devices are TAPs,
//! and there is little to save there.

use std::collections::{HashMap, HashSet};

use rustix::io::Errno;

use super::rtnetlink::{Dump, Events, Links};
use super::{ReadReport, Reader, ReaderDef, ReaderError, Started, not_this_kernel};
use crate::host::Host;
use crate::model::{Batch, Health, Leaving, NicSource, PartHealth, TapReading, VmSet};

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
            Ok(events) => {
                Started::Running(Box::new(TapNetlink { links, events, read: Default::default(), lost: 0 }))
            }
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
    /// The devices of the last two ticks, the latest first: so long the last counters of a device are kept.
    read: [HashSet<u32>; 2],
    /// How often last counters were lost.
    lost: u64,
}

impl TapNetlink {
    fn read_all(&mut self, vms: &VmSet, batch: &mut Batch) -> Result<(), ReaderError> {
        // By the name first: the counters then are of the device that had it, whatever happens to the name meanwhile.
        let found = self.links.find(vms.local_nics())?.into_iter();
        let mut missing: HashMap<_, _> =
            found.map(|(ifindex, nic)| (ifindex, (nic, self.links.kind_of(&nic.tap)))).collect();
        for _ in 0..DUMPS {
            if missing.is_empty() {
                break;
            }
            let dump = self.links.stats(|ifindex, stats| {
                if let Some((nic, kind)) = missing.remove(&ifindex) {
                    let source = NicSource::Netlink;
                    batch.taps.insert(nic.clone(), TapReading { ifindex, source, kind, stats });
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
                && let Some(reading) = self.events.last_counters(&nic.tap)
                && !self.read.iter().any(|read| read.contains(&reading.ifindex))
            {
                batch.taps.insert(nic.clone(), reading);
            }
        }
    }

    fn read_the_deleted(&mut self, leaving: &Leaving, batch: &mut Batch) {
        self.take_events();
        for nic in leaving.vms.local_nics() {
            if !batch.taps.contains_key(nic)
                && let Some(reading) = self.events.last_counters(&nic.tap)
                && leaving.ifindexes.get(nic) == Some(&reading.ifindex)
            {
                batch.taps.insert(nic.clone(), reading);
            }
        }
    }

    fn take_events(&mut self) {
        match self.events.take() {
            Ok(false) => {}
            Ok(true) => {
                self.lost += 1;
                tracing::warn!("too many devices changed at once: some last counters are lost");
            }
            Err(error) => tracing::warn!("cannot listen for changes of devices: {error}"),
        }
    }

    /// A device may outlive its VM.
    fn read_the_living(&mut self, leaving: &Leaving, batch: &mut Batch) -> Result<(), ReaderError> {
        let unread: Vec<_> = leaving.vms.local_nics().filter(|nic| !batch.taps.contains_key(*nic)).collect();
        let mut living = HashMap::new();
        for nic in unread {
            let Some(&ifindex) = leaving.ifindexes.get(nic) else { continue };
            if self.links.index_of(&nic.tap)? == Some(ifindex) {
                living.insert(ifindex, (nic.clone(), self.links.kind_of(&nic.tap)));
            }
        }
        if living.is_empty() {
            return Ok(());
        }
        self.links.stats(|ifindex, stats| {
            if let Some((nic, kind)) = living.remove(&ifindex) {
                batch.taps.insert(nic, TapReading { ifindex, source: NicSource::Netlink, kind, stats });
            }
        })?;
        Ok(())
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
        self.read.swap(0, 1);
        self.read[0] = batch.taps.values().map(|reading| reading.ifindex).collect();
        report.items = batch.taps.len();
        report.lost = Some(self.lost);
        report
    }

    fn last_words(&mut self, leaving: &Leaving, batch: &mut Batch) {
        self.read_the_deleted(leaving, batch);
        if let Err(error) = self.read_the_living(leaving, batch) {
            tracing::warn!("last counters: {error}");
        }
        // One may have gone in between.
        self.read_the_deleted(leaving, batch);
    }
}
