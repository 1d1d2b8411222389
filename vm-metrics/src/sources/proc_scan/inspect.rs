//! One process, looked at closely: is it a VM, and which?

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use super::super::{ApiSocket, SourceError, shortened};
use super::cmdline::{self, VmArgs};
use super::executable::hypervisor;
use super::process::{Process, Unread};
use super::taps::{Taps, taps};
use super::vfio::is_network;
use crate::model::{Hypervisor, InstanceInfo, Nic, UncountedKind, UncountedNic, is_device_name};
use crate::procfs::Stat;

/// More than a VM has, for each is dozens of series. Anybody may give a program a hypervisor's name.
pub const MAX_NICS: usize = 256;

/// A VM and what stays wrong with what is known of it.
#[derive(Debug)]
pub struct Vm {
    pub info: InstanceInfo,
    pub start_ticks: u64,
    api_socket: Option<PathBuf>,
    /// NICs by the command line, for want of a look at the process's descriptors.
    named_nics: Vec<Nic>,
    named_uncounted: Vec<UncountedNic>,
    /// What the command line leaves to a file.
    config_file: Option<PathBuf>,
    is_configured: bool,
    config_problem: Option<SourceError>,
    nics_problem: Option<SourceError>,
    too_many_nics: Option<SourceError>,
    /// How many descriptors the process had when its NICs were read.
    descriptors: Option<u64>,
}

/// `None`: not a VM, or not yet: a process may run another program later.
pub fn inspect(process: &Process) -> Result<Option<Vm>, Unread> {
    let Some(hypervisor) = process.executable()?.as_deref().and_then(hypervisor) else {
        return Ok(None);
    };
    let stat = process.stat()?;
    let argv = process.argv()?;
    // Without arguments it is about to end.
    if stat.is_dead() || argv.is_empty() || is_fork(process, &stat, hypervisor, &argv) {
        return Ok(None);
    }
    let Some(mut args) = cmdline::parse(hypervisor, &argv) else {
        return Ok(None);
    };
    if args.daemonizes && is_launcher(process, &stat) {
        return Ok(None);
    }
    let mut vm = Vm {
        info: info(process.pid, hypervisor, &args),
        start_ticks: stat.start_ticks,
        api_socket: args.api_socket.take().map(PathBuf::from),
        named_nics: named_nics(args.taps),
        named_uncounted: named_uncounted(process, args.uncounted),
        config_file: args.config_file.take().map(PathBuf::from),
        is_configured: false,
        config_problem: None,
        nics_problem: None,
        too_many_nics: None,
        descriptors: None,
    };
    vm.read_nics(process)?;
    Ok(Some(vm))
}

impl Vm {
    /// Asks the process which TAPs it holds. Where that is not allowed, the command line must do.
    pub fn read_nics(&mut self, process: &Process) -> Result<(), Unread> {
        let descriptors = process.descriptor_count();
        match taps(process) {
            Ok(Taps { nics, uncounted, problem }) => {
                self.descriptors = descriptors;
                self.info.nics = nics;
                self.set_uncounted(uncounted);
                self.nics_problem = problem;
            }
            Err(Unread::Failed(error)) if error.io_kind() == Some(io::ErrorKind::PermissionDenied) => {
                self.descriptors = descriptors;
                self.info.nics.clone_from(&self.named_nics);
                self.set_uncounted(BTreeSet::new());
                self.nics_problem = Some(self.not_allowed(process.pid, &error));
            }
            Err(error) => return Err(error),
        }
        self.limit_nics(process.pid);
        Ok(())
    }

    /// Whether the process has opened or closed something since. What came and went says nothing.
    pub fn holds_as_many(&self, process: &Process) -> bool {
        self.descriptors == process.descriptor_count()
    }

    /// The command line names what was there at the start, descriptors tell of some that came later.
    fn set_uncounted(&mut self, mut held: BTreeSet<UncountedNic>) {
        held.extend(self.named_uncounted.iter().cloned());
        self.info.uncounted = held.into_iter().collect();
    }

    fn limit_nics(&mut self, pid: u32) {
        let InstanceInfo { nics, uncounted, .. } = &mut self.info;
        let too_many = nics.len() > MAX_NICS || uncounted.len() > MAX_NICS;
        nics.truncate(MAX_NICS);
        uncounted.truncate(MAX_NICS);
        self.too_many_nics = too_many.then(|| {
            let problem = format!("it has more than {MAX_NICS} network interfaces: the others are left out");
            SourceError::Process { pid, problem }
        });
    }

    /// The file that its command line names.
    pub fn config_file(&self) -> Option<&Path> {
        self.config_file.as_deref()
    }

    /// Adds what that file says, once.
    pub fn configure(&mut self, config: Result<&VmArgs, SourceError>) {
        self.config_problem = None;
        match config {
            Ok(args) if !self.is_configured => {
                self.is_configured = true;
                self.info.allocated_vcpus = args.vcpus;
                self.info.allocated_memory_bytes = args.memory_bytes;
                self.named_nics = named_nics(args.taps.clone());
            }
            Ok(_) => {}
            Err(problem) => self.config_problem = Some(problem),
        }
    }

    /// Where its VMM can be asked.
    pub fn api_socket(&self, pid: u32) -> Option<ApiSocket> {
        Some(ApiSocket {
            hypervisor: self.info.hypervisor,
            pid,
            start_ticks: self.start_ticks,
            path: self.api_socket.clone()?,
            nics: self.info.nics.clone(),
        })
    }

    pub fn problems(&self) -> impl Iterator<Item = &SourceError> {
        self.config_problem.iter().chain(&self.nics_problem).chain(&self.too_many_nics)
    }

    fn not_allowed(&self, pid: u32, error: &SourceError) -> SourceError {
        let taps: Vec<_> = self.named_nics.iter().map(|nic| nic.tap.as_str()).collect();
        let instead = if taps.is_empty() {
            "its command line names no TAP either".to_owned()
        } else {
            format!("taken from its command line: {}", taps.join(", "))
        };
        SourceError::Process {
            pid,
            problem: format!("its TAPs need CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH ({error}); {instead}"),
        }
    }
}

/// A child that QEMU has forked and that has not yet become the helper it is meant to be: in all but its pid
/// its parent.
fn is_fork(process: &Process, stat: &Stat, hypervisor: Hypervisor, argv: &[String]) -> bool {
    let parent = process.other(stat.ppid);
    let same_program = |parent: &Process| {
        parent.executable().is_ok_and(|name| name.as_deref().and_then(self::hypervisor) == Some(hypervisor))
    };
    same_program(&parent) && parent.argv().is_ok_and(|parent| parent == argv)
}

/// `qemu -daemonize` goes on in a grandchild, in a new session whose leader, the child, has left at once. The
/// first process has the same arguments and waits for the grandchild to be ready; the session it was started
/// in is alive, or it leads it itself.
fn is_launcher(process: &Process, stat: &Stat) -> bool {
    process.other(stat.session).stat().is_ok_and(|leader| !leader.is_dead())
}

fn info(pid: u32, hypervisor: Hypervisor, args: &VmArgs) -> InstanceInfo {
    let id = args.id.as_deref().map_or_else(|| format!("{hypervisor}-{pid}"), shortened);
    InstanceInfo {
        name: args.name.as_deref().map_or_else(|| id.clone(), shortened),
        id,
        hypervisor,
        hypervisor_pid: Some(pid),
        nics: Vec::new(),
        allocated_vcpus: args.vcpus,
        allocated_memory_bytes: args.memory_bytes,
        ..InstanceInfo::default()
    }
}

/// A PCI device may be anything; one of which nothing is known is listed rather than left out.
fn named_uncounted(process: &Process, mut uncounted: Vec<UncountedNic>) -> Vec<UncountedNic> {
    uncounted.truncate(MAX_NICS + 1);
    for nic in &mut uncounted {
        nic.name = shortened(&nic.name);
    }
    let is_nic = |nic: &UncountedNic| is_network(process.host, &nic.name).unwrap_or(true);
    uncounted.retain(|nic| nic.kind != UncountedKind::Vfio || is_nic(nic));
    uncounted
}

fn named_nics(taps: Vec<String>) -> Vec<Nic> {
    let mut seen = HashSet::new();
    let names = taps.into_iter().filter(|tap| is_device_name(tap) && seen.insert(tap.clone()));
    names.map(Nic::local).take(MAX_NICS + 1).collect()
}
