//! Reader `tap_netlink`: counters of TAPs, by RTM_GETSTATS.
//!
//! They are the numbers of sysfs, for a fraction of the system calls.
//!
//! A dump has all devices of the namespace. Asking for each TAP alone would be cheaper only where few devices are TAPs,
//! and there is little to save there.

mod netns_reader;

use rustix::io::Errno;

use self::netns_reader::NetnsReader;
use crate::model::{Batch, ComponentHealth, Health, Nic, Tenant, VmSet};
use crate::net::NetError;
use crate::net::devices::Devices;
use crate::net::namespaces::{EnteredNamespace, Namespaces, by_netns};
use crate::readers::{ReadReport, Reader, ReaderContext, ReaderDef, StartOutcome, not_this_kernel};

pub(crate) const READER: ReaderDef = ReaderDef {
    name: "tap_netlink",
    configure: |section| {
        section.no_options()?;
        Ok(Box::new(start))
    },
};

fn start(context: &mut ReaderContext) -> StartOutcome {
    if let Some(health) = not_this_kernel(&context.host) {
        return StartOutcome::Not(health);
    }
    let own = match context.namespaces.own() {
        Ok(own) => own,
        Err(error) => return StartOutcome::Not(health(&error)),
    };
    // Tried, not inferred from the version. What may pass is for the ticks to tell.
    match own.links.stats(|_, _| ()) {
        Err(error) if is_unsupported(&error) => StartOutcome::Not(health(&error)),
        _ => StartOutcome::Running(Box::new(TapNetlink::default())),
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

#[derive(Debug, Default)]
struct TapNetlink {
    /// How often last counters were lost.
    lost: u64,
}

impl TapNetlink {
    /// Events that are lost where a trusted user has VMs are the reader's fault. Who loses events of a namespace of one's
    /// own has had devices come and go there faster than they can be followed.
    fn take_lost(&mut self, namespaces: &mut Namespaces, report: &mut ReadReport) {
        self.lost += namespaces.devices(None).map_or(0, Devices::take_lost);
        for (_, known) in namespaces.entered() {
            let (tenant, lost) = (known.tenant(), known.devices().map_or(0, Devices::take_lost));
            match tenant {
                Tenant::Trusted => self.lost += lost,
                Tenant::Other(uid) => report.overuse.add(uid, "device events", lost),
            }
        }
        report.lost = Some(self.lost);
    }
}

impl Reader for TapNetlink {
    fn reads_devices(&self) -> bool {
        true
    }

    /// A device that is not there is not reported: the readers after this one report what nobody could read.
    fn read(&mut self, vms: &VmSet, namespaces: &mut Namespaces, batch: &mut Batch) -> ReadReport {
        let mut report = ReadReport::default();
        report.add_namespaces(namespaces.report());
        // Devices also come and go where no VM has one just now.
        each_netns(vms.nics().enumerate(), namespaces, |netns, nics| {
            if let Err(error) = netns.read(nics, batch) {
                report.error(error);
            }
        });
        report.items = batch.nics.iter().filter(|readings| readings.tap.is_some()).count();
        self.take_lost(namespaces, &mut report);
        report
    }

    fn read_final(&mut self, removals: &VmSet, namespaces: &mut Namespaces, batch: &mut Batch) {
        each_netns(batch.removed_nics(removals), namespaces, |netns, nics| netns.read_final(nics, batch));
    }
}

/// In each namespace that was entered, with the interfaces there.
fn each_netns<'v>(
    nics: impl Iterator<Item = (usize, &'v Nic)>,
    namespaces: &mut Namespaces,
    mut each: impl FnMut(&mut NetnsReader, &[(usize, &Nic)]),
) {
    let nics = by_netns(nics);
    let (entered, table) = namespaces.all_devices();
    for EnteredNamespace { netns, devices, .. } in entered {
        let nics = nics.get(&netns).map(Vec::as_slice).unwrap_or_default();
        each(&mut NetnsReader { netns, devices, table }, nics);
    }
}
