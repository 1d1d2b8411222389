//! Finds QEMU, Cloud Hypervisor and Firecracker processes with no configuration.
//!
//! A look at every process costs too much for each tick, so a call lists the pids, looks closely at those it
//! does not know, and makes sure by the start time that a known VM is still the same process. What it knows
//! is looked at again
//! - while it is young, since a process may run another program without a new pid (`YOUNG`),
//! - at a full scan (`FULL_SCAN_INTERVAL`), which finds all that the shorter way misses,
//! - and a VM's NICs also when network devices came or went on the host, another VM has one of them, or the process has
//!   another number of descriptors than before.
//!
//! A close look costs many times what it costs to know a process again: no tick could afford one at every VM. The looks
//! at processes of users who are not trusted have a budget of time (`looks`).
//!
//! A VM that is known stays what its command line said first. Its NICs follow its descriptors, also into processes that
//! come from it (`heirs`).
//!
//! A process that ends while it is looked at is not there; one that may not be read is a problem in the
//! listing.

mod closer;
mod cmdline;
mod config_files;
mod devices;
mod due;
pub(crate) mod executable;
mod heirs;
mod inspect;
mod listing;
mod looks;
mod proc_dir;
mod process;
mod program;
mod taps;
mod vfio;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::mem;
use std::path::Path;
use std::time::{Duration, Instant};

use self::closer::Closer;
use self::config_files::ConfigFiles;
use self::devices::Devices;
use self::due::{Due, Quick, in_order, quick_look};
use self::heirs::Orphan;
use self::inspect::{Look, Vm, inspect};
use self::looks::Looks;
use self::proc_dir::ProcDir;
pub(super) use self::process::{Process, Unread};
use self::program::Program;
use super::{InstanceSource, Listing, SourceContext, SourceDef, SourceError, Tier};
use crate::host::Host;
use crate::model::{Excess, Nic, Trust};

/// A jailer, a shell script or `fork` + `exec` becomes the hypervisor within this time, and a new VM opens
/// its TAPs.
const YOUNG: Duration = Duration::from_secs(10);

/// How late a surprise may be found: a TAP that was made long ago and is opened now, an old process that
/// turns into a hypervisor, a pid that was used again between two calls.
const FULL_SCAN_INTERVAL: Duration = Duration::from_secs(30);

pub const SOURCE: SourceDef = SourceDef {
    name: "proc_scan",
    help: "QEMU, Cloud Hypervisor and Firecracker processes on this host, found with no configuration",
    tier: Tier::Process,
    configure: |section, context| {
        section.no_options()?;
        Ok(Some(Box::new(ProcScan::new(context))))
    },
};

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
    overuse: Excess,
}

#[derive(Debug)]
struct Seen {
    /// When the process, or the VM in it, was first seen.
    first: Duration,
    /// The process from which it had come when it was first seen.
    parent: Option<u32>,
    /// For how many calls it has waited for a look.
    waits: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    NoVm,
    Vm(Box<Vm>),
    Unreadable(SourceError),
}

/// What decides, in one call, how closely a process is looked at.
#[derive(Debug)]
struct Moment {
    now: Duration,
    full_scan: bool,
    devices_changed: bool,
}

impl Seen {
    fn new(first: Duration, parent: Option<u32>, what: What) -> Self {
        Self { first, parent, waits: 0, what }
    }

    fn vm(&self) -> Option<&Vm> {
        match &self.what {
            What::Vm(vm) => Some(vm),
            What::NoVm | What::Unreadable(_) => None,
        }
    }
}

/// What one call comes across beside the VMs.
#[derive(Debug, Default)]
struct Findings {
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
            overuse: Excess::default(),
        }
    }

    /// The oldest VM first. `now` is the time since any fixed moment.
    fn list_at(&mut self, now: Duration) -> Result<Listing, SourceError> {
        let pids = self.proc.pids(self.host.proc())?;
        let mut findings = Findings::default();
        self.looks.begin(now, self.last_full_scan.is_none());
        let moment = Moment {
            now,
            full_scan: self.full_scan_due(now),
            devices_changed: self.devices_changed().unwrap_or_else(|error| {
                findings.problems.push(error);
                false
            }),
        };
        let (host, closer, trust) = (self.host.clone(), self.closer.clone(), self.trust.clone());
        let devices = Devices::new(&host, &closer);
        let look = Look { devices: &devices, trust: &trust };
        let due = self.look_quickly(pids, &moment, &mut findings);
        for due in in_order(due, |uid| trust.is_trusted(uid)) {
            self.look_closely(due, &moment, look, &mut findings);
        }
        // Heirs come after all looks: each process is known then.
        for (pid, nics) in mem::take(&mut findings.lost) {
            self.take_back(pid, &nics, look);
        }
        for (pid, seen) in mem::take(&mut findings.ended) {
            if let Some(vm) = seen.vm().filter(|vm| vm.is_listed) {
                self.pass_on(pid, vm, look);
            }
        }
        self.search(look);
        self.give_way();
        self.read_shared_nics(look, &mut findings);
        self.read_configs(now);
        self.looks.end();
        Ok(self.listing(findings.problems))
    }

    /// Of VMs whose command lines name files.
    fn read_configs(&mut self, now: Duration) {
        let files = self.seen.iter().filter_map(|(pid, seen)| {
            let vm = seen.vm()?;
            Some(((*pid, vm.start_ticks), vm.config_file()?))
        });
        self.overuse.merge(self.configs.update(now, files));
        for (pid, seen) in &mut self.seen {
            if let What::Vm(vm) = &mut seen.what
                && let Some(config) = self.configs.get((*pid, vm.start_ticks))
            {
                vm.configure(config);
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

    /// The processes that are to be looked at closely.
    fn look_quickly(&mut self, pids: Vec<u32>, moment: &Moment, findings: &mut Findings) -> Vec<Due> {
        let mut before = mem::take(&mut self.seen);
        let mut due = Vec::new();
        for pid in pids {
            let process = Process::new(&self.host, pid);
            let is_named = self.named.contains(&pid);
            match quick_look(&process, before.remove(&pid), moment, is_named) {
                Quick::Gone(ended) => findings.ended.extend(ended.map(|seen| (pid, seen))),
                Quick::Same(seen) => drop(self.seen.insert(pid, seen)),
                Quick::Failed(known, error) => {
                    findings.problems.push(error);
                    self.seen.extend(known.map(|seen| (pid, seen)));
                }
                Quick::Due(known, ended) => {
                    findings.ended.extend(ended.map(|seen| (pid, seen)));
                    let of_vm = known.as_ref().and_then(|seen| seen.vm()?.info.uid);
                    due.push(Due { pid, uid: of_vm.or_else(|| process.uid()), known });
                }
            }
        }
        findings.ended.extend(before);
        due
    }

    /// A process of a user who has used up the time for looks waits for the next call.
    fn look_closely(&mut self, due: Due, moment: &Moment, look: Look, findings: &mut Findings) {
        let Due { pid, uid, known } = due;
        let (host, is_trusted) = (self.host.clone(), self.trust.is_trusted(uid));
        let process = Process::new(&host, pid);
        if !is_trusted && !self.looks.is_room(uid) {
            self.overuse.add(uid, "processes", 1);
            let new = || Seen::new(moment.now, due::parent(&process), What::NoVm);
            let mut seen = known.unwrap_or_else(new);
            seen.waits += 1;
            self.seen.insert(pid, seen);
            return;
        }
        let began = Instant::now();
        let is_named = self.named.contains(&pid);
        let seen = match known {
            Some(seen) if seen.vm().is_some() => self.look_at_vm(&process, seen, is_named, look, findings),
            known => look_at_new(&process, known, moment, is_named, look),
        };
        self.seen.extend(seen.map(|seen| (pid, Seen { waits: 0, ..seen })));
        if !is_trusted {
            self.looks.used(uid, began.elapsed());
        }
    }

    /// A VM that cannot be read for once stays what it was.
    fn look_at_vm(
        &self,
        process: &Process,
        mut seen: Seen,
        is_named: bool,
        look: Look,
        findings: &mut Findings,
    ) -> Option<Seen> {
        let What::Vm(vm) = &mut seen.what else { return Some(seen) };
        let now = Program::of(process);
        let left = vm.program.as_ref().zip(now.as_ref()).is_some_and(|(was, is)| was.was_left_for(is));
        let unwanted = !vm.is_listed && !is_named;
        let next = Seen::new(seen.first, seen.parent, What::NoVm);
        if left || unwanted {
            findings.ended.push((process.pid, seen));
            return Some(next);
        }
        let before = vm.info.nics.clone();
        match vm.read_nics(process, look) {
            Ok(()) => {}
            Err(Unread::Gone) => {
                findings.ended.push((process.pid, seen));
                return None;
            }
            Err(Unread::Failed(error)) => findings.problems.push(error),
        }
        let lost: Vec<_> = before.into_iter().filter(|nic| !vm.info.nics.contains(nic)).collect();
        // Any other program is part of a VM only as long as it holds a device of it.
        let is_holder = now.is_some_and(|program| !program.is_hypervisor());
        if vm.is_listed && is_holder && vm.info.nics.is_empty() {
            findings.ended.push((process.pid, seen));
            return Some(next);
        }
        if !lost.is_empty() {
            findings.lost.push((process.pid, lost));
        }
        Some(seen)
    }

    /// Of two VMs with the same NIC, one may have lost it since its NICs were read.
    fn read_shared_nics(&mut self, look: Look, findings: &mut Findings) {
        let mut holders = HashMap::new();
        for nic in self.seen.values().filter_map(Seen::vm).flat_map(|vm| &vm.info.nics) {
            *holders.entry(nic).or_insert(0) += 1;
        }
        let shares = |vm: &Vm| vm.heirs.is_empty() && vm.info.nics.iter().any(|nic| holders[nic] > 1);
        let sharing = self.seen.iter().filter(|(_, seen)| seen.vm().is_some_and(shares));
        let sharing: Vec<u32> = sharing.map(|(pid, _)| *pid).collect();
        for pid in sharing {
            let Some(Seen { what: What::Vm(vm), .. }) = self.seen.get_mut(&pid) else { continue };
            let is_trusted = self.trust.is_trusted(vm.info.uid);
            if !is_trusted && !self.looks.is_room(vm.info.uid) {
                self.overuse.add(vm.info.uid, "processes", 1);
                continue;
            }
            let began = Instant::now();
            if let Err(Unread::Failed(error)) = vm.read_nics(&Process::new(&self.host, pid), look) {
                findings.problems.push(error);
            }
            if !is_trusted {
                self.looks.used(vm.info.uid, began.elapsed());
            }
        }
    }
}

/// What a process is that was no VM so far; `None` when it is gone.
fn look_at_new(
    process: &Process,
    known: Option<Seen>,
    moment: &Moment,
    is_named: bool,
    look: Look,
) -> Option<Seen> {
    let Seen { first, parent, .. } =
        known.unwrap_or_else(|| Seen::new(moment.now, due::parent(process), What::NoVm));
    let found = match inspect(process, look) {
        Ok(None) if is_named => Vm::holder(process, look).map(|vm| Some(vm.unlisted())),
        found => found,
    };
    match found {
        Ok(None) => Some(Seen::new(first, parent, What::NoVm)),
        // Its TAPs may come as late after an `exec` as after a `fork`.
        Ok(Some(vm)) => Some(Seen::new(moment.now, parent, What::Vm(Box::new(vm)))),
        Err(Unread::Gone) => None,
        Err(Unread::Failed(error)) => Some(Seen::new(first, parent, What::Unreadable(error))),
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
