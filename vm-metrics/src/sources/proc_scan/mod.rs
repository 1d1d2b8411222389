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
//! A close look costs many times what it costs to know a process again: no tick could afford one at every VM.
//!
//! A process that ends while it is looked at is not there; one that may not be read is a problem in the
//! listing.

mod cmdline;
mod config_files;
pub(crate) mod executable;
mod inspect;
mod proc_dir;
mod process;
mod taps;
mod vfio;

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::mem;
use std::path::Path;
use std::time::{Duration, Instant};

use self::config_files::ConfigFiles;
use self::inspect::{Vm, inspect};
use self::proc_dir::ProcDir;
pub(super) use self::process::{Process, Unread};
use super::process_files::Workers;
use super::{InstanceSource, Listing, SourceContext, SourceDef, SourceError, Tier};
use crate::host::Host;
use crate::model::Excess;

/// A jailer, a shell script or `fork` + `exec` becomes the hypervisor within this time, and a new VM opens
/// its TAPs.
const YOUNG: Duration = Duration::from_secs(10);

/// How late a surprise may be found: a TAP that was made long ago and is opened now, an old process that
/// turns into a hypervisor, a pid that was used again between two calls.
const FULL_SCAN_INTERVAL: Duration = Duration::from_secs(30);

/// Without the right to read any process, there would be one problem for each.
const MAX_PROBLEMS: usize = 32;

pub const SOURCE: SourceDef = SourceDef {
    name: "proc_scan",
    help: "QEMU, Cloud Hypervisor and Firecracker processes on this host, found with no configuration",
    tier: Tier::Process,
    configure: |section, SourceContext { host, workers, .. }| {
        section.no_options()?;
        Ok(Some(Box::new(ProcScan::new(host.clone(), workers.clone()))))
    },
};

#[derive(Debug)]
pub struct ProcScan {
    host: Host,
    started: Instant,
    proc: ProcDir,
    /// Every process of the last call, and no other.
    seen: HashMap<u32, Seen>,
    configs: ConfigFiles,
    devices: BTreeSet<OsString>,
    last_full_scan: Option<Duration>,
}

#[derive(Debug)]
struct Seen {
    /// When the process, or the VM in it, was first seen.
    first: Duration,
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

impl InstanceSource for ProcScan {
    fn list_running_instances_for_metrics(&mut self) -> Result<Listing, SourceError> {
        self.list_at(self.started.elapsed())
    }
}

impl ProcScan {
    pub fn new(host: Host, workers: Workers) -> Self {
        Self {
            configs: ConfigFiles::new(host.clone(), workers),
            host,
            started: Instant::now(),
            proc: ProcDir::default(),
            seen: HashMap::new(),
            devices: BTreeSet::new(),
            last_full_scan: None,
        }
    }

    /// The oldest VM first. `now` is the time since any fixed moment.
    fn list_at(&mut self, now: Duration) -> Result<Listing, SourceError> {
        let pids = self.proc.pids(self.host.proc())?;
        let mut problems = Vec::new();
        let moment = Moment {
            now,
            full_scan: self.full_scan_due(now),
            devices_changed: self.devices_changed().unwrap_or_else(|error| {
                problems.push(error);
                false
            }),
        };
        let mut before = mem::take(&mut self.seen);
        for pid in pids {
            let process = Process::new(&self.host, pid);
            if let Some(seen) = look(&process, before.remove(&pid), &moment, &mut problems) {
                self.seen.insert(pid, seen);
            }
        }
        let overuse = self.read_configs(now);
        self.read_shared_nics(&mut problems);
        Ok(Listing { overuse, ..self.listing(problems) })
    }

    /// Of VMs whose command lines name files.
    fn read_configs(&mut self, now: Duration) -> Excess {
        let files = self.seen.iter().filter_map(|(pid, seen)| match &seen.what {
            What::Vm(vm) => Some(((*pid, vm.start_ticks), vm.config_file()?)),
            What::NoVm | What::Unreadable(_) => None,
        });
        let overuse = self.configs.update(now, files);
        for (pid, seen) in &mut self.seen {
            if let What::Vm(vm) = &mut seen.what
                && let Some(config) = self.configs.get((*pid, vm.start_ticks))
            {
                vm.configure(config);
            }
        }
        overuse
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

    /// Of two VMs with the same NIC, one may have lost it since its NICs were read.
    fn read_shared_nics(&mut self, problems: &mut Vec<SourceError>) {
        let vms = || {
            self.seen.iter().filter_map(|(pid, seen)| match &seen.what {
                What::Vm(vm) => Some((*pid, vm)),
                What::NoVm | What::Unreadable(_) => None,
            })
        };
        let mut holders = HashMap::new();
        for nic in vms().flat_map(|(_, vm)| &vm.info.nics) {
            *holders.entry(nic).or_insert(0) += 1;
        }
        let shares = |vm: &Vm| vm.info.nics.iter().any(|nic| holders[nic] > 1);
        let sharing: Vec<u32> = vms().filter(|(_, vm)| shares(vm)).map(|(pid, _)| pid).collect();
        for pid in sharing {
            if let Some(Seen { what: What::Vm(vm), .. }) = self.seen.get_mut(&pid)
                && let Err(Unread::Failed(error)) = vm.read_nics(&Process::new(&self.host, pid))
            {
                problems.push(error);
            }
        }
    }

    fn listing(&self, mut problems: Vec<SourceError>) -> Listing {
        let (mut vms, mut sockets) = (Vec::new(), Vec::new());
        let mut pids: Vec<_> = self.seen.iter().collect();
        pids.sort_unstable_by_key(|(pid, _)| **pid);
        for (pid, seen) in pids {
            match &seen.what {
                What::NoVm => {}
                What::Vm(vm) => {
                    problems.extend(vm.problems().cloned());
                    sockets.extend(vm.api_socket(*pid));
                    vms.push((vm.start_ticks, pid, &vm.info));
                }
                What::Unreadable(error) => problems.push(error.clone()),
            }
        }
        vms.sort_unstable_by_key(|(start_ticks, pid, _)| (*start_ticks, **pid));
        if let Some(count) = problems.len().checked_sub(MAX_PROBLEMS).filter(|count| *count > 0) {
            problems.truncate(MAX_PROBLEMS);
            problems.push(SourceError::More { count });
        }
        let instances = vms.into_iter().map(|(_, _, info)| info.clone()).collect();
        Listing { instances, problems, sockets, ..Listing::default() }
    }
}

/// What a process is now; `None` when it is gone. A VM that cannot be read for once stays what it was.
fn look(
    process: &Process,
    known: Option<Seen>,
    moment: &Moment,
    problems: &mut Vec<SourceError>,
) -> Option<Seen> {
    let mut known = known;
    if let Some(Seen { what: What::Vm(vm), .. }) = &known {
        match process.stat() {
            Ok(stat) if stat.start_ticks == vm.start_ticks && !stat.is_dead() => {}
            Ok(_) => known = None,
            Err(Unread::Gone) => return None,
            Err(Unread::Failed(error)) => {
                problems.push(error);
                return known;
            }
        }
    }
    let first = known.as_ref().map_or(moment.now, |seen| seen.first);
    let young = moment.now.saturating_sub(first) < YOUNG;
    if let Some(mut seen) = known.take_if(|_| !young && !moment.full_scan) {
        if let What::Vm(vm) = &mut seen.what
            && (moment.devices_changed || !vm.holds_as_many(process))
            && let Err(Unread::Failed(error)) = vm.read_nics(process)
        {
            problems.push(error);
        }
        return Some(seen);
    }
    let was_vm = known.as_ref().is_some_and(|seen| matches!(seen.what, What::Vm(_)));
    match inspect(process) {
        Ok(None) => Some(Seen { first, what: What::NoVm }),
        Ok(Some(vm)) => {
            // Its TAPs may come as late after an `exec` as after a `fork`.
            let first = if was_vm { first } else { moment.now };
            Some(Seen { first, what: What::Vm(Box::new(vm)) })
        }
        Err(Unread::Gone) => None,
        Err(Unread::Failed(error)) if was_vm => {
            problems.push(error);
            known
        }
        Err(Unread::Failed(error)) => Some(Seen { first, what: What::Unreadable(error) }),
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
