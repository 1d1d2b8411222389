//! Source `proc_scan`: finds QEMU, Cloud Hypervisor, Firecracker and other KVM processes.
//!
//! A look at every process costs too much for each tick. A scan lists the pids and looks closely at new processes. By the
//! start time it recognizes the processes of known VMs. It looks at a known process again
//! - while it is young, since a process may run another program without a new pid (`YOUNG`),
//! - at a full scan (`FULL_SCAN_INTERVAL`), which finds all other changes,
//! - and at the NICs of a VM also when network devices have changed on the host, another VM has one of them, or the
//!   process has another number of descriptors.
//!
//! All other processes are looked at for KVM on a schedule of their own (`kvm`). A close look is expensive: no tick could
//! afford one at every VM. Looks at processes of untrusted users have a time budget (`looks`).
//!
//! A known VM keeps the identity of its first command line. Its NICs follow its descriptors, also into children (`heirs`).
//! A process that ends during its look counts as absent. An unreadable process is a problem in the listing.

mod ask;
mod closer;
mod cmdline;
mod config_files;
mod devices;
mod due;
mod heirs;
mod holdings;
mod identity;
mod inspect;
mod inspections;
mod kvm;
mod listing;
mod looks;
mod observer;
mod proc_dir;
mod process_entry;
mod program_file;
mod queries;
mod scan;
mod shared;
mod taps;
mod vcpus;
mod walk;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::Deserialize;

use self::closer::Closer;
pub(super) use self::cmdline::{FirecrackerConfig, netdev_kind};
use self::config_files::ConfigFiles;
use self::due::in_order;
use self::heirs::Orphan;
use self::holdings::Holdings;
use self::inspect::ProcessVm;
use self::looks::{LookBudget, TimePool};
use self::observer::{Observer, WalkTime};
use self::proc_dir::ProcDir;
use self::process_entry::{ProcessEntry, ProcessKind};
use self::queries::{ProcessQuery, ProcessReply};
use self::scan::Scan;
use super::{Listing, Precedence, Source, SourceContext, SourceDef, SourceError};
use crate::host::Host;
use crate::model::{Excess, Trust};
use crate::patient::Patient;

/// Within this time a jailer or a script becomes the hypervisor, and a new VM opens its TAPs.
const YOUNG: Duration = Duration::from_secs(10);

/// The delay of rare changes: an old process opens an old TAP or becomes a hypervisor, or a pid is reused between two
/// scans.
const FULL_SCAN_INTERVAL: Duration = Duration::from_secs(30);

/// How long a trusted user's process may take to answer, and how long any other's.
const PATIENCE: Duration = Duration::from_millis(200);
const PATIENCE_FOR_OTHERS: Duration = Duration::from_millis(50);

/// Looks for KVM have half as much time as looks at VMs, in a budget of their own. So no number of VMs leaves a user
/// without them.
const KVM_COST: u32 = 2;

pub const SOURCE: SourceDef = SourceDef {
    name: "proc_scan",
    help: "QEMU, Cloud Hypervisor, Firecracker and any other KVM processes on this host, found with no configuration",
    precedence: Precedence::Process,
    config: r#"# QEMU, Cloud Hypervisor and Firecracker processes, and all others that run a VM by KVM, found by themselves.
[sources.proc_scan]
enabled = "auto"
# kvm = true
"#,
    configure: |section, context| {
        let config: ProcScanConfig = section.options()?;
        Ok(Some(Box::new(ProcScan { finds_kvm: config.kvm, ..ProcScan::new(context) })))
    },
};

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ProcScanConfig {
    kvm: bool,
}

impl Default for ProcScanConfig {
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
    processes: HashMap<u32, ProcessEntry>,
    /// Processes that other sources name, whatever program they run.
    named: HashSet<u32>,
    orphans: Vec<Orphan>,
    configs: ConfigFiles,
    devices: BTreeSet<OsString>,
    last_full_scan: Option<Duration>,
    closer: Closer,
    looks: LookBudget,
    kvm_looks: LookBudget,
    /// Looks at holders of devices that have not ended.
    unfinished_looks: HashMap<u32, Holdings>,
    /// VMs of KVM of whose children some could not be looked at.
    unfinished_parents: HashSet<u32>,
    pace: WalkTime,
    patient: Patient<(Arc<Observer>, u32, ProcessQuery), ProcessReply>,
    overuse: Excess,
    /// The largest logged number of hypervisor processes whose users `[trust]` excludes.
    most_shut_out: usize,
    /// Whether VMs of any program are looked for.
    finds_kvm: bool,
}

impl Source for ProcScan {
    fn list(&mut self) -> Result<Listing, SourceError> {
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
            processes: HashMap::new(),
            named: HashSet::new(),
            orphans: Vec::new(),
            devices: BTreeSet::new(),
            last_full_scan: None,
            closer: Closer::default(),
            looks: LookBudget::default(),
            kvm_looks: LookBudget::of_cost(KVM_COST),
            unfinished_looks: HashMap::new(),
            unfinished_parents: HashSet::new(),
            pace: WalkTime::default(),
            patient: Patient::new("scan", PATIENCE, queries::answer)
                .with_patience_for_others(PATIENCE_FOR_OTHERS),
            overuse: Excess::default(),
            most_shut_out: 0,
            finds_kvm: true,
        }
    }

    /// The oldest VM first. `now` is the time since any fixed moment.
    fn list_at(&mut self, now: Duration) -> Result<Listing, SourceError> {
        let pids = self.proc.pids(self.host.proc())?;
        let mut scan = self.begin(now);
        let due = self.look_quickly(pids, &mut scan);
        let (due, strangers) = in_order(due, |uid| self.trust.is_trusted(uid));
        self.look_closely(due, &mut scan);
        for due in inspections::chunks(strangers) {
            let due = self.those_with_room(due);
            self.look_closely(due, &mut scan);
        }
        if scan.full_scan {
            self.log_shut_out(scan.observer.shut_out.load(Ordering::Relaxed));
        }
        self.look_for_kvm(&mut scan);
        self.read_configs(now);
        // Heirs come after all looks: each process is known then.
        for (pid, nics) in mem::take(&mut scan.lost) {
            self.take_back(pid, &nics, &scan);
        }
        for entry in mem::take(&mut scan.ended) {
            if let Some(vm) = entry.vm().filter(|vm| vm.is_listed) {
                self.pass_on(vm, &scan);
            }
        }
        self.take_from_children(&scan);
        self.search(&scan);
        self.give_way();
        self.look_at_shared_nics(&mut scan);
        self.looks.end();
        self.kvm_looks.end();
        self.unfinished_looks.retain(|pid, _| self.processes.contains_key(pid));
        Ok(self.listing(scan.problems))
    }

    fn begin(&mut self, now: Duration) -> Scan {
        let is_first = self.last_full_scan.is_none();
        self.patient.begin_round();
        self.looks.begin(now, is_first);
        self.kvm_looks.begin(now, is_first);
        let observer = Arc::new(Observer::new(&self.host, &self.trust, &self.closer, self.pace));
        let mut scan = Scan::new(observer, now, is_first);
        scan.full_scan = self.full_scan_due(now);
        match self.devices_changed() {
            Ok(changed) => scan.devices_changed = changed,
            Err(error) => scan.problems.push(error),
        }
        scan
    }

    fn looks_of(&mut self, pool: TimePool) -> &mut LookBudget {
        match pool {
            TimePool::Vms => &mut self.looks,
            TimePool::Kvm => &mut self.kvm_looks,
        }
    }

    fn vm(&self, pid: u32) -> Option<&ProcessVm> {
        self.processes.get(&pid)?.vm()
    }

    fn vm_mut(&mut self, pid: u32) -> Option<&mut ProcessVm> {
        self.processes.get_mut(&pid)?.vm_mut()
    }

    fn vms(&self) -> impl Iterator<Item = &ProcessVm> {
        self.processes.values().filter_map(ProcessEntry::vm)
    }

    /// Only a number that has doubled: users cannot fill the log by starts and ends.
    fn log_shut_out(&mut self, count: usize) {
        if count > 0 && count >= self.most_shut_out * 2 {
            self.most_shut_out = count;
            tracing::warn!(
                "processes of hypervisors that are no VMs here: {count}; [trust] does not name their users"
            );
        }
    }

    /// Of VMs whose command lines name files.
    fn read_configs(&mut self, now: Duration) {
        let files = self.processes.values().filter_map(ProcessEntry::vm);
        let files = files.filter_map(|vm| Some((vm.key(), vm.info.uid, vm.config_file()?)));
        self.overuse.merge(self.configs.update(now, files));
        for vm in self.processes.values_mut().filter_map(ProcessEntry::vm_mut) {
            if let Some(config) = self.configs.get(vm.key()) {
                vm.configure(&self.host, config);
            }
        }
    }

    fn full_scan_due(&mut self, now: Duration) -> bool {
        let due = self.last_full_scan.is_none_or(|last| now.saturating_sub(last) >= FULL_SCAN_INTERVAL);
        self.last_full_scan = if due { Some(now) } else { self.last_full_scan };
        due
    }

    fn devices_changed(&mut self) -> Result<bool, SourceError> {
        let directory = self.host.net_devices();
        let failed = |error| SourceError::io("list", &directory, error);
        let entries = fs::read_dir(&directory).map_err(failed)?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name()).map_err(failed));
        let devices = names.collect::<Result<_, _>>()?;
        let changed = devices != self.devices;
        self.devices = devices;
        Ok(changed)
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use tests::fixture;
