//! What the TAP devices count, from one RTM_GETSTATS dump per network namespace: the numbers of sysfs, for a fraction of
//! the system calls.
//!
//! A dump has all devices of the namespace. Asking for each TAP alone would be cheaper only where few devices are TAPs,
//! and there is little to save there.

mod devices;

use std::collections::{HashMap, HashSet};
use std::io;

use rustix::io::Errno;

use self::devices::Devices;
use crate::model::Tenant;
use crate::model::{Batch, ComponentHealth, Health, Nic, Removals, VmSet};
use crate::net::NetError;
use crate::net::events::EventPoller;
use crate::net::namespaces::{ForeignNamespaces, by_netns};
use crate::net::rtnetlink::{Events, Links, Scope};
use crate::readers::{ReadReport, Reader, ReaderContext, ReaderDef, StartOutcome, not_this_kernel};

pub(crate) const DEF: ReaderDef = ReaderDef {
    name: "tap_netlink",
    help: "bytes, packets, errors and drops of each TAP, from one RTM_GETSTATS dump per namespace and tick",
    configure: |section| {
        section.no_options()?;
        Ok(Box::new(start))
    },
};

fn start(context: &ReaderContext) -> StartOutcome {
    if let Some(health) = not_this_kernel(&context.host) {
        return StartOutcome::Not(health);
    }
    let mut links = match Links::open() {
        Ok(links) => links,
        Err(error) => return StartOutcome::Not(health(&error)),
    };
    // Tried, not inferred from the version. What may pass is for the ticks to tell.
    match links.stats(|_, _| ()) {
        Err(error) if is_unsupported(&error) => StartOutcome::Not(health(&error)),
        _ => match Events::open(Scope::OWN) {
            Ok(events) => StartOutcome::Running(Box::new(TapNetlink {
                own: Devices::new(links, events, None),
                elsewhere: ForeignNamespaces::new(&context.host, &context.trust),
                watch: context.watch.clone(),
                lost: 0,
            })),
            Err(source) => {
                StartOutcome::Not(health(&NetError::Netlink { operation: "listen for changes", source }))
            }
        },
    }
}

fn health(error: &NetError) -> ComponentHealth {
    let state = if is_unsupported(error) { Health::Unsupported } else { Health::Failed };
    ComponentHealth::new(state, format!("{error} (RTM_GETSTATS needs Linux 4.7)")).with_errno(error.errno())
}

/// The kernel is too old, or whoever started the daemon allows it no netlink.
fn is_unsupported(error: &NetError) -> bool {
    let errno = error.errno().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT | Errno::PERM | Errno::ACCESS)
    )
}

#[derive(Debug)]
struct TapNetlink {
    own: Devices,
    elsewhere: ForeignNamespaces<Place>,
    watch: EventPoller,
    /// How often last counters were lost.
    lost: u64,
}

/// The devices of another network namespace.
#[derive(Debug)]
struct Place {
    devices: Devices,
    /// No other namespace has or will have it.
    number: u64,
}

impl TapNetlink {
    /// Opens the sockets of new namespaces; a socket stays in the one where it was made.
    fn follow(&mut self, vms: &VmSet, ended: &HashSet<u32>, report: &mut ReadReport) {
        let Self { elsewhere, watch, .. } = self;
        let followed = elsewhere.follow(vms, ended, |opened| {
            let scope = if opened.tenant.is_trusted() { Scope::TRUSTED } else { Scope::STRANGER };
            let open =
                || Ok::<_, io::Error>((Links::open().map_err(io::Error::other)?, Events::open(scope)?));
            let (links, events) = opened.namespace.within(open)??;
            watch.add(&events, opened.tenant);
            let number = links.netns_cookie().unwrap_or(opened.number);
            Ok(Place { devices: Devices::new(links, events, Some(opened.netns)), number })
        });
        report.add_namespaces(followed);
    }

    fn each_place(
        &mut self,
        nics: &HashMap<Option<u64>, Vec<&Nic>>,
        mut each: impl FnMut(&mut Devices, &[&Nic]),
    ) {
        for (netns, nics) in nics {
            let devices = match netns {
                None => Some(&mut self.own),
                Some(netns) => self.elsewhere.get_mut(*netns).map(|place| &mut place.devices),
            };
            if let Some(devices) = devices {
                each(devices, nics);
            }
        }
    }
}

impl TapNetlink {
    /// Events that are lost where a trusted user has VMs are the reader's fault. Who loses events of a namespace of one's
    /// own has had devices come and go there faster than they can be followed.
    fn take_lost(&mut self, report: &mut ReadReport) {
        self.lost += self.own.take_lost();
        for (_, tenant, place) in self.elsewhere.open_with_tenants() {
            let lost = place.devices.take_lost();
            match tenant {
                Tenant::Trusted => self.lost += lost,
                Tenant::Other(uid) => report.overuse.add(uid, "device events", lost),
            }
        }
        report.lost = Some(self.lost);
    }
}

impl Reader for TapNetlink {
    /// A device that is not there is not reported: the readers after this one report what nobody could read.
    fn read(&mut self, vms: &VmSet, batch: &mut Batch) -> ReadReport {
        let mut report = ReadReport::default();
        self.follow(vms, &batch.ended, &mut report);
        for (netns, place) in self.elsewhere.open() {
            batch.namespaces.insert(netns, place.number);
        }
        self.own.begin_round(batch);
        self.elsewhere.open().for_each(|(_, place)| place.devices.begin_round(batch));
        let mut nics = by_netns(vms.nics());
        // What came and went where no NIC is just now is heard, too.
        nics.entry(None).or_default();
        for (netns, _) in self.elsewhere.open() {
            nics.entry(Some(netns)).or_default();
        }
        self.each_place(&nics, |devices, nics| {
            if let Err(error) = devices.read(nics, batch) {
                report.error(error);
            }
        });
        report.items = batch.taps.len();
        self.take_lost(&mut report);
        report
    }

    fn read_final(&mut self, removals: &Removals, batch: &mut Batch) {
        for (netns, place) in self.elsewhere.open() {
            batch.namespaces.insert(netns, place.number);
        }
        self.each_place(&by_netns(removals.vms.nics()), |devices, nics| {
            devices.read_final(nics, removals, batch);
        });
        self.elsewhere.release(|_| true);
    }
}
