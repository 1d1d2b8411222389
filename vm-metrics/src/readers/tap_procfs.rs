//! What the TAP devices of other network namespaces count, from `/proc/<pid>/net/dev` of a process that is there: for
//! that nobody has to enter the namespace, which needs `CAP_SYS_ADMIN`.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use super::elsewhere::{Elsewhere, Opened, by_netns};
use super::{ReadReport, Reader, ReaderDef, ReaderError, Setting, Started};
use crate::host::Host;
use crate::model::{
    Batch, InstanceInfo, Leaving, Nic, NicKind, NicSource, TapReading, TapStats, VmSet,
};
use crate::procfs::parse_net_dev;

pub(super) const DEF: ReaderDef = ReaderDef {
    name: "tap_procfs",
    help: "bytes, packets, errors and drops of TAPs in other network namespaces, from /proc/<pid>/net/dev",
    configure: |section| {
        section.no_options()?;
        Ok(Box::new(|setting| Started::Running(Box::new(TapProcfs::new(setting)))))
    },
};

#[derive(Debug)]
struct TapProcfs {
    host: Host,
    /// Held open, so that no other namespace gets its number meanwhile.
    held: Elsewhere<Opened>,
}

impl TapProcfs {
    fn new(setting: &Setting) -> Self {
        Self { host: setting.host.clone(), held: Elsewhere::new(setting) }
    }

    /// All devices of a namespace, by name; `None` when none of the processes is in it.
    fn devices(&self, netns: u64, pids: &[u32]) -> Result<Option<HashMap<String, TapStats>>, ReaderError> {
        for pid in pids {
            let process = self.host.process(*pid);
            let is_there = || fs::metadata(process.join("ns/net")).is_ok_and(|found| found.ino() == netns);
            // Before and after: a process may enter another namespace.
            if !is_there() {
                continue;
            }
            let path = process.join("net/dev");
            let Ok(content) = fs::read(&path) else { continue };
            if !is_there() {
                continue;
            }
            return match parse_net_dev(&content) {
                Ok(devices) => Ok(Some(devices)),
                Err(source) => Err(ReaderError::Parse { path, source }),
            };
        }
        Ok(None)
    }

    fn read_netns(
        &self,
        (netns, nics): (u64, &[&Nic]),
        pids: &[u32],
        batch: &mut Batch,
        report: &mut ReadReport,
    ) {
        let devices = match self.devices(netns, pids) {
            Ok(Some(devices)) => devices,
            Ok(None) => {
                let device = |nic: &&Nic| ReaderError::OtherNamespace { device: nic.tap.clone(), netns };
                nics.iter().map(device).for_each(|error| report.error(error));
                return;
            }
            Err(error) => return report.error(error),
        };
        for nic in nics {
            match devices.get(&nic.tap) {
                Some(stats) => {
                    let (source, kind) = (NicSource::Procfs, NicKind::Tap);
                    // The file does not say the index.
                    let reading = TapReading { ifindex: 0, source, kind, stats: *stats };
                    batch.taps.insert((*nic).clone(), reading);
                    report.items += 1;
                }
                None => report.error(ReaderError::NoDevice { device: nic.tap.clone() }),
            }
        }
    }
}

impl Reader for TapProcfs {
    fn read(&mut self, vms: &VmSet, batch: &mut Batch) -> ReadReport {
        let mut report = ReadReport::default();
        let unread = |nic: &&Nic| nic.netns.is_some() && !batch.taps.contains_key(*nic);
        let unread = by_netns(vms.nics().filter(unread));
        // Where netlink is, it holds them all. What cannot be held is read all the same.
        let is_elsewhere = |vm: &&InstanceInfo| {
            let is_held = |nic: &Nic| nic.netns.is_none_or(|netns| batch.namespaces.contains_key(&netns));
            !vm.nics.iter().all(is_held)
        };
        let others = VmSet { vms: vms.vms.iter().filter(is_elsewhere).cloned().collect() };
        self.held.follow(&others, &batch.ended, &mut ReadReport::default(), Ok);
        if unread.is_empty() {
            return report;
        }
        let processes = vms.foreign_netns();
        for (netns, nics) in &unread {
            if netns.is_some_and(|netns| batch.namespaces.contains_key(&netns)) {
                // Netlink is there, and knows the index: what it missed it reads in the next tick.
                nics.iter().for_each(|nic| report.error(ReaderError::NoDevice { device: nic.tap.clone() }));
                continue;
            }
            let Some((netns, pids)) = netns.and_then(|netns| Some((netns, processes.get(&netns)?))) else {
                continue;
            };
            self.read_netns((netns, nics), pids, batch, &mut report);
            if let Some(held) = self.held.get_mut(netns) {
                batch.namespaces.entry(netns).or_insert(held.number);
            }
        }
        report
    }

    fn last_words(&mut self, _: &Leaving, _: &mut Batch) {
        self.held.release(|_| true);
    }
}
