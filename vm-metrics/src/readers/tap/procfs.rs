//! Reader `tap_procfs`: counters of foreign TAPs, from `/proc/<pid>/net/dev`.
//!
//! The process is in the namespace of the TAP. So the daemon need not enter it, which takes `CAP_SYS_ADMIN`.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use crate::host::Host;
use crate::model::{Batch, Nic, NicSource, TapReading, TapStats, Tenant, Trust, VmSet};
use crate::net::NetError;
use crate::net::namespaces::{Namespaces, by_netns};
use crate::net::netns::inode_of;
use crate::patient::{Job, Patient};
use crate::procfs::parse_net_dev;
use crate::readers::{ReadReport, Reader, ReaderContext, ReaderDef, ReaderError, StartOutcome};

pub(crate) const READER: ReaderDef = ReaderDef {
    name: "tap_procfs",
    configure: |section| {
        section.no_options()?;
        Ok(Box::new(|context| StartOutcome::Running(Box::new(TapProcfs::new(context)))))
    },
};

#[derive(Debug)]
struct TapProcfs {
    host: Host,
    trust: Trust,
    devices: Patient<(Host, u64, Vec<u32>), Answer>,
}

/// All devices of a namespace, by name; `None` when none of the processes is in it.
type Answer = Result<Option<HashMap<String, TapStats>>, ReaderError>;

/// How long the processes of a namespace may take to answer.
const PATIENCE: Duration = Duration::from_millis(100);

impl TapProcfs {
    fn new(context: &ReaderContext) -> Self {
        let (host, trust) = (context.host.clone(), context.trust.clone());
        let devices = Patient::new("net-dev", PATIENCE, devices);
        Self { host, trust, devices }
    }

    /// Asks the processes that are in these namespaces, each of which is its tenant's.
    fn ask(&mut self, unread: &[NetnsRequest<'_>]) -> Vec<Option<Answer>> {
        let job = |unread: &NetnsRequest<'_>| Job {
            pid: unread.pids.first().copied().unwrap_or_default(),
            uid: unread.tenant.uid(),
            is_trusted: unread.tenant.is_trusted(),
            question: (self.host.clone(), unread.netns, unread.pids.to_vec()),
        };
        self.devices.each(unread.iter().map(job).collect())
    }
}

/// The unread TAPs of one namespace, and the processes that are asked for them.
struct NetnsRequest<'v> {
    netns: u64,
    nics: &'v [(usize, &'v Nic)],
    pids: &'v [u32],
    tenant: Tenant,
}

impl NetnsRequest<'_> {
    fn take(
        &self,
        answer: Option<Answer>,
        namespaces: &mut Namespaces,
        batch: &mut Batch,
        report: &mut ReadReport,
    ) {
        let netns = self.netns;
        let devices = match answer {
            Some(Ok(Some(devices))) => devices,
            Some(Ok(None)) => {
                let device =
                    |(_, nic): &(usize, &Nic)| ReaderError::OtherNamespace { device: nic.tap.clone(), netns };
                self.nics.iter().map(device).for_each(|error| report.error(error));
                return;
            }
            Some(Err(error)) => return report.error(error),
            None => {
                let problem = "its processes do not answer".to_owned();
                return report.error(NetError::Namespace { netns, problem, errno: None }.into());
            }
        };
        for (at, nic) in self.nics {
            match devices.get(&nic.tap) {
                Some(stats) => {
                    // The file has no index.
                    batch.nics[*at].device = namespaces.find_by_name(nic);
                    batch.nics[*at].tap = Some(TapReading { source: NicSource::Procfs, stats: *stats });
                    report.items += 1;
                }
                None => report.error(ReaderError::NoDevice { device: nic.tap.clone() }),
            }
        }
    }
}

fn devices((host, netns, pids): (Host, u64, Vec<u32>)) -> Answer {
    for pid in pids {
        let process = host.process(pid);
        let is_there = || inode_of(process.join("ns/net")) == Some(netns);
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

impl Reader for TapProcfs {
    fn reads_devices(&self) -> bool {
        true
    }

    fn read(&mut self, vms: &VmSet, namespaces: &mut Namespaces, batch: &mut Batch) -> ReadReport {
        let mut report = ReadReport::default();
        let unread = vms.nics().enumerate().filter(|(at, nic)| {
            let is_unread = nic.netns.is_some() && batch.nics[*at].tap.is_none();
            // Where netlink is, it finds the next device of a name in the next tick.
            let is_absent = batch.nics[*at].device.is_none() && namespaces.devices(nic.netns).is_some();
            if is_unread && is_absent {
                report.error(ReaderError::NoDevice { device: nic.tap.clone() });
            }
            is_unread && !is_absent
        });
        let unread = by_netns(unread);
        if unread.is_empty() {
            return report;
        }
        let processes = vms.foreign_netns();
        let tenants: HashMap<u32, Tenant> =
            vms.vms.iter().filter_map(|vm| Some((vm.hypervisor_pid?, Tenant::of(vm, &self.trust)))).collect();
        let mut asked = Vec::new();
        for (netns, nics) in &unread {
            let Some((netns, pids)) = netns.and_then(|netns| Some((netns, processes.get(&netns)?))) else {
                continue;
            };
            // Whether it is a macvtap, whose directions are others, is known only inside.
            if namespaces.is_deferred(netns) {
                continue;
            }
            let tenant = pids.first().and_then(|pid| tenants.get(pid)).copied();
            asked.push(NetnsRequest { netns, nics, pids, tenant: tenant.unwrap_or(Tenant::Other(None)) });
        }
        let answers = self.ask(&asked);
        for (unread, answer) in asked.iter().zip(answers) {
            unread.take(answer, namespaces, batch, &mut report);
        }
        report.overuse.merge(self.devices.take_overuse());
        report
    }
}
