//! Finds QEMU, Cloud Hypervisor, Firecracker and all other processes that run VMs by KVM, with no configuration.
//!
//! A look at every process costs too much for each tick, so a call lists the pids, looks closely at those it
//! does not know, and makes sure by the start time that a known VM is still the same process. What it knows
//! is looked at again
//! - while it is young, since a process may run another program without a new pid (`YOUNG`),
//! - at a full scan (`FULL_SCAN_INTERVAL`), which finds all that the shorter way misses,
//! - and a VM's NICs also when network devices came or went on the host, another VM has one of them, or the process has
//!   another number of descriptors than before.
//!
//! All other processes are looked at for KVM at a pace of their own (`kvm`).
//!
//! A close look costs many times what it costs to know a process again: no tick could afford one at every VM. The looks
//! at processes of users who are not trusted have a budget of time (`looks`).
//!
//! A known VM stays what its command line said first. Its NICs follow its descriptors, also into its children (`heirs`).
//!
//! A process that ends while it is looked at is not there; one that may not be read is a problem in the listing.

mod ask;
mod closer;
mod cmdline;
mod config_files;
mod devices;
mod due;
mod heirs;
mod identity;
mod inspect;
mod kubernetes;
mod kvm;
mod listing;
mod looks;
mod observer;
mod proc_dir;
mod program;
mod scan;
mod seen;
mod shared;
mod taps;
mod vcpus;
mod walk;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;

use self::ask::{Answer, Question};
use self::closer::Closer;
pub(super) use self::cmdline::netdev_kind;
use self::config_files::ConfigFiles;
use self::devices::Devices;
use self::due::in_order;
use self::heirs::Orphan;
use self::looks::Looks;
use self::observer::{HeldNics, Observer, Pace};
use self::proc_dir::ProcDir;
use self::seen::{Seen, What};
use super::{InstanceSource, Listing, SourceContext, SourceDef, SourceError, Tier};
use crate::host::Host;
use crate::model::{Excess, Nic, Trust};
use crate::patient::Patient;
use crate::sources::process::Process;

/// A jailer, a shell script or `fork` + `exec` becomes the hypervisor within this time, and a new VM opens
/// its TAPs.
const YOUNG: Duration = Duration::from_secs(10);

/// How late a surprise may be found: a TAP that was made long ago and is opened now, an old process that
/// turns into a hypervisor, a pid that was used again between two calls.
const FULL_SCAN_INTERVAL: Duration = Duration::from_secs(30);

/// How long a trusted user's process may take to answer, and how long any other's.
const PATIENCE: Duration = Duration::from_millis(200);
const PATIENCE_FOR_OTHERS: Duration = Duration::from_millis(50);

/// Looks for KVM, which may find nothing, have half as much time as those at VMs. It is their own: no number of VMs leaves
/// a user without such a look.
const KVM_COST: u32 = 2;

pub const SOURCE: SourceDef = SourceDef {
    name: "proc_scan",
    help: "QEMU, Cloud Hypervisor, Firecracker and any other KVM processes on this host, found with no configuration",
    tier: Tier::Process,
    configure: |section, context| {
        let config: Config = section.options()?;
        Ok(Some(Box::new(ProcScan { finds_kvm: config.kvm, ..ProcScan::new(context) })))
    },
};

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    kvm: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { kvm: true }
    }
}

#[derive(Debug)]
pub struct ProcScan {
    host: Host,
    trust: Trust,
    started: Instant,
    proc: ProcDir,
    /// Every process of the last call, and no other.
    seen: HashMap<u32, Seen>,
    /// Processes that other sources name, whatever program they run.
    named: HashSet<u32>,
    orphans: Vec<Orphan>,
    configs: ConfigFiles,
    devices: BTreeSet<OsString>,
    last_full_scan: Option<Duration>,
    closer: Closer,
    looks: Looks,
    kvm_looks: Looks,
    /// Looks at holders of devices that have not ended.
    parts: HashMap<u32, HeldNics>,
    /// VMs of KVM of whose children some could not be looked at.
    unfinished_parents: HashSet<u32>,
    pace: Pace,
    patient: Patient<(Arc<Observer>, u32, Question), Answer>,
    overuse: Excess,
    /// The most processes that a call found to be no VMs because of their users, and that the log has told.
    most_shut_out: usize,
    /// Whether VMs of any program are looked for.
    finds_kvm: bool,
}

/// What decides, in one call, how closely a process is looked at.
#[derive(Debug)]
pub struct Moment {
    now: Duration,
    is_first: bool,
    full_scan: bool,
    devices_changed: bool,
}

/// What one call comes across beside the VMs.
#[derive(Debug, Default)]
pub struct Findings {
    problems: Vec<SourceError>,
    /// VMs whose process has ended, or runs another program.
    ended: Vec<(u32, Seen)>,
    /// NICs that a VM's process has let go of.
    lost: Vec<(u32, Vec<Nic>)>,
}

impl InstanceSource for ProcScan {
    fn list_running_instances_for_metrics(&mut self) -> Result<Listing, SourceError> {
        self.list_at(self.started.elapsed())
    }

    fn named(&mut self, pids: &[u32]) {
        self.named = pids.iter().copied().collect();
    }
}

impl ProcScan {
    pub fn new(context: &SourceContext) -> Self {
        Self {
            host: context.host.clone(),
            trust: context.trust.clone(),
            configs: ConfigFiles::new(context.host.clone(), context.workers.clone()),
            started: Instant::now(),
            proc: ProcDir::default(),
            seen: HashMap::new(),
            named: HashSet::new(),
            orphans: Vec::new(),
            devices: BTreeSet::new(),
            last_full_scan: None,
            closer: Closer::default(),
            looks: Looks::default(),
            kvm_looks: Looks::of_cost(KVM_COST),
            parts: HashMap::new(),
            unfinished_parents: HashSet::new(),
            pace: Pace::default(),
            patient: Patient::new("scan", PATIENCE, ask::answer)
                .with_patience_for_others(PATIENCE_FOR_OTHERS),
            overuse: Excess::default(),
            most_shut_out: 0,
            finds_kvm: true,
        }
    }

    /// The oldest VM first. `now` is the time since any fixed moment.
    fn list_at(&mut self, now: Duration) -> Result<Listing, SourceError> {
        let pids = self.proc.pids(self.host.proc())?;
        let mut findings = Findings::default();
        self.patient.begin_round();
        self.looks.begin(now, self.last_full_scan.is_none());
        self.kvm_looks.begin(now, self.last_full_scan.is_none());
        let moment = Moment {
            now,
            is_first: self.last_full_scan.is_none(),
            full_scan: self.full_scan_due(now),
            devices_changed: self.devices_changed().unwrap_or_else(|error| {
                findings.problems.push(error);
                false
            }),
        };
        let observer = Arc::new(Observer {
            host: self.host.clone(),
            trust: self.trust.clone(),
            devices: Devices::new(&self.host, &self.closer),
            pace: self.pace,
            shut_out: AtomicUsize::new(0),
        });
        let due = self.look_quickly(pids, &moment, &observer, &mut findings);
        let mut due = in_order(due, |uid| observer.trust.is_trusted(uid));
        let strangers = due.split_off(due.partition_point(|due| observer.trust.is_trusted(due.uid)));
        self.look_closely(due, &observer, &moment, &mut findings);
        for due in scan::chunks(strangers) {
            let due = self.those_with_room(due);
            self.look_closely(due, &observer, &moment, &mut findings);
        }
        if moment.full_scan {
            self.tell_of_shut_out(observer.shut_out.load(Ordering::Relaxed));
        }
        self.look_for_kvm(&observer, &moment, &mut findings);
        self.read_configs(now);
        // Heirs come after all looks: each process is known then.
        for (pid, nics) in mem::take(&mut findings.lost) {
            self.take_back(pid, &nics, &observer);
        }
        for (pid, seen) in mem::take(&mut findings.ended) {
            if let Some(vm) = seen.vm().filter(|vm| vm.is_listed) {
                self.pass_on(pid, vm, &observer);
            }
        }
        self.take_from_children(&moment, &observer);
        self.search(&observer);
        self.give_way();
        self.look_at_shared_nics(&observer, &mut findings);
        self.looks.end();
        self.kvm_looks.end();
        self.parts.retain(|pid, _| self.seen.contains_key(pid));
        Ok(self.listing(findings.problems))
    }

    /// Only a number that has doubled: users cannot fill the log by starts and ends.
    fn tell_of_shut_out(&mut self, count: usize) {
        if count > 0 && count >= self.most_shut_out * 2 {
            self.most_shut_out = count;
            tracing::warn!(
                "processes of hypervisors that are no VMs here: {count}; [trust] does not name their users"
            );
        }
    }

    /// Of VMs whose command lines name files.
    fn read_configs(&mut self, now: Duration) {
        let files = self.seen.iter().filter_map(|(pid, seen)| {
            let vm = seen.vm()?;
            Some(((*pid, vm.start_ticks), vm.info.uid, vm.config_file()?))
        });
        self.overuse.merge(self.configs.update(now, files));
        for (pid, seen) in &mut self.seen {
            if let What::Vm(vm) = &mut seen.what
                && let Some(config) = self.configs.get((*pid, vm.start_ticks))
            {
                vm.configure(&Process::new(&self.host, *pid), config);
            }
        }
    }

    fn full_scan_due(&mut self, now: Duration) -> bool {
        let due = self.last_full_scan.is_none_or(|last| now.saturating_sub(last) >= FULL_SCAN_INTERVAL);
        if due {
            self.last_full_scan = Some(now);
        }
        due
    }

    fn devices_changed(&mut self) -> Result<bool, SourceError> {
        let devices = names(&self.host.net_devices())?.collect::<Result<_, _>>()?;
        let changed = devices != self.devices;
        self.devices = devices;
        Ok(changed)
    }
}

fn names(directory: &Path) -> Result<impl Iterator<Item = Result<OsString, SourceError>>, SourceError> {
    let failed = move |error| SourceError::io("list", directory, error);
    let entries = fs::read_dir(directory).map_err(failed)?;
    Ok(entries.map(move |entry| entry.map(|entry| entry.file_name()).map_err(failed)))
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use tests::fixture;
