//! Reader `tap_procfs`: counters of foreign TAPs, from `/proc/<pid>/net/dev`.
//!
//! The process is in the namespace of the TAP. So the daemon need not enter it, which takes `CAP_SYS_ADMIN`.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use crate::host::Host;
use crate::model::{Batch, Nic, NicKind, NicSource, TapReading, TapStats, Tenant, Trust, VmSet};
use crate::net::NetError;
use crate::net::devices::Devices;
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

/// Tells TAPs from macvtaps, whose directions are others. Without the right to enter, a device is taken for a TAP.
fn kind_of(devices: Option<&mut Devices>, name: &str) -> NicKind {
    let Some(devices) = devices else { return NicKind::Tap };
    // One that has gone meanwhile has no counters either.
    let _ = devices.links.index_of(name);
    devices.links.kind_of(name)
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
    nics: &'v [&'v Nic],
    pids: &'v [u32],
    tenant: Tenant,
}

impl NetnsRequest<'_> {
    fn take(
        &self,
        answer: Option<Answer>,
        mut kind_of: impl FnMut(&str) -> NicKind,
        batch: &mut Batch,
        report: &mut ReadReport,
    ) {
        let netns = self.netns;
        let devices = match answer {
            Some(Ok(Some(devices))) => devices,
            Some(Ok(None)) => {
                let device = |nic: &&Nic| ReaderError::OtherNamespace { device: nic.tap.clone(), netns };
                self.nics.iter().map(device).for_each(|error| report.error(error));
                return;
            }
            Some(Err(error)) => return report.error(error),
            None => {
                let problem = "its processes do not answer".to_owned();
                return report.error(NetError::Namespace { netns, problem, errno: None }.into());
            }
        };
        for nic in self.nics {
            match devices.get(&nic.tap) {
                Some(stats) => {
                    let (source, kind) = (NicSource::Procfs, kind_of(&nic.tap));
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
    fn read(&mut self, vms: &VmSet, namespaces: &mut Namespaces, batch: &mut Batch) -> ReadReport {
        let mut report = ReadReport::default();
        let unread = |nic: &&Nic| nic.netns.is_some() && !batch.taps.contains_key(*nic);
        let unread = by_netns(vms.nics().filter(unread));
        // Held open, so that no other namespace gets the inode meanwhile. What cannot be held is read all the same, and
        // netlink has reported it.
        namespaces.follow(vms, &batch.ended);
        if unread.is_empty() {
            return report;
        }
        let processes = vms.foreign_netns();
        let tenants: HashMap<u32, Tenant> =
            vms.vms.iter().filter_map(|vm| Some((vm.hypervisor_pid?, Tenant::of(vm, &self.trust)))).collect();
        let mut asked = Vec::new();
        for (netns, nics) in &unread {
            if netns.is_some_and(|netns| batch.namespaces.contains_key(&netns)) {
                // Netlink is there, and knows the index: what it missed it reads in the next tick.
                nics.iter().for_each(|nic| report.error(ReaderError::NoDevice { device: nic.tap.clone() }));
                continue;
            }
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
            let netns = unread.netns;
            unread.take(answer, |name| kind_of(namespaces.devices(Some(netns)), name), batch, &mut report);
            if let Some(number) = namespaces.held(netns) {
                batch.namespaces.entry(netns).or_insert(number);
            }
        }
        report.overuse.merge(self.devices.take_overuse());
        report
    }
}
