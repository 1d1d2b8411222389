//! One process, looked at closely: is it a VM, and which?

use std::collections::{BTreeSet, HashSet};
use std::mem;
use std::path::{Path, PathBuf};

use super::super::bounded::MAX_VCPUS;
use super::super::{ApiSocket, SourceError, shortened};
use super::cmdline::{self, VmArgs};
use super::executable::hypervisor;
use super::kvm::{self, HeldKvm};
use super::observer::{HeldNics, Observer};
use super::process::{Process, Unread};
use super::program::Program;
use super::taps::Taps;
use super::vfio::is_network;
use crate::model::{Hypervisor, InstanceInfo, Nic, ProgramName, UncountedKind, UncountedNic, is_device_name};
use crate::procfs::Stat;

/// More than a VM has, for each is dozens of series. Anybody may give a program a hypervisor's name.
pub const MAX_NICS: usize = 256;

/// A VM and what stays wrong with what is known of it.
#[derive(Debug)]
pub struct Vm {
    pub info: InstanceInfo,
    pub start_ticks: u64,
    /// Whether it is a VM by itself. Else another source names its process, and what that holds is evidence.
    pub is_listed: bool,
    /// Whether it is known only for the devices that it holds.
    pub is_holder: bool,
    pub program: Option<Program>,
    /// Whether the NICs are those that the process holds, as the kernel says.
    pub is_looked_at: bool,
    /// Processes that have come from this one and hold some of its NICs.
    pub heirs: Vec<u32>,
    /// The NICs of ended VMs that this process goes on with, and no others of those that it holds.
    pub inherited: Option<Vec<Nic>>,
    /// Whether the process held vCPUs of KVM.
    has_vcpus: bool,
    api_socket: Option<PathBuf>,
    /// NICs by the command line, for want of a look at the process's descriptors.
    named_nics: Vec<Nic>,
    named_uncounted: Vec<UncountedNic>,
    /// What the command line leaves to a file.
    config_file: Option<PathBuf>,
    is_configured: bool,
    config_problem: Option<SourceError>,
    nics_problem: Option<SourceError>,
    /// Whether it holds NICs that are left out.
    has_lost_nics: bool,
    too_many_nics: Option<SourceError>,
    /// How many descriptors the process had when its NICs were read.
    descriptors: Option<u64>,
}

/// `None`: not a VM, or not yet: a process may run another program later.
pub fn inspect(process: &Process, observer: &Observer) -> Result<Option<Vm>, Unread> {
    let Some(hypervisor) = process.executable()?.as_deref().and_then(hypervisor) else {
        return Ok(None);
    };
    inspect_as(process, observer, hypervisor)
}

/// The same, of a process that runs this hypervisor.
pub fn inspect_as(
    process: &Process,
    observer: &Observer,
    hypervisor: Hypervisor,
) -> Result<Option<Vm>, Unread> {
    if !observer.trust.may_run_vms(process.uid()) {
        return Ok(None);
    }
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
        api_socket: args.api_socket.take().map(PathBuf::from),
        named_uncounted: named_uncounted(process, mem::take(&mut args.uncounted)),
        named_nics: named_nics(mem::take(&mut args.taps)),
        config_file: args.config_file.take().map(PathBuf::from),
        ..Vm::new(process, info(process.pid, hypervisor, &args), stat.start_ticks)
    };
    vm.take_nics(process.pid, observer, HeldNics::read(process, observer)?);
    Ok(Some(vm))
}

impl Vm {
    fn new(process: &Process, info: InstanceInfo, start_ticks: u64) -> Self {
        Self {
            info,
            start_ticks,
            is_listed: true,
            is_holder: false,
            program: Program::of(process),
            is_looked_at: false,
            heirs: Vec::new(),
            inherited: None,
            has_vcpus: false,
            api_socket: None,
            named_nics: Vec::new(),
            named_uncounted: Vec::new(),
            config_file: None,
            is_configured: false,
            config_problem: None,
            nics_problem: None,
            has_lost_nics: false,
            too_many_nics: None,
            descriptors: None,
        }
    }

    /// A process of which nothing is known but that it holds devices.
    pub fn holder(process: &Process, observer: &Observer) -> Result<Self, Unread> {
        let stat = process.stat()?;
        if stat.is_dead() {
            return Err(Unread::Gone);
        }
        let info = info(process.pid, Hypervisor::Other, &VmArgs::default());
        let mut vm = Self { is_holder: true, ..Self::new(process, info, stat.start_ticks) };
        vm.take_nics(process.pid, observer, HeldNics::read(process, observer)?);
        Ok(vm)
    }

    /// A process that runs a VM by KVM in a program of which nothing else is known.
    pub fn of_kvm(process: &Process, observer: &Observer, program: &str) -> Result<Self, Unread> {
        let stat = process.stat()?;
        let (id, name) = kvm::identity(process, stat.ppid, program);
        let hypervisor = Hypervisor::Program(ProgramName::new(program));
        let info = InstanceInfo { id, name, ..info(process.pid, hypervisor, &VmArgs::default()) };
        let mut vm = Self::new(process, info, stat.start_ticks);
        vm.take_nics(process.pid, observer, HeldNics::read(process, observer)?);
        Ok(vm)
    }

    /// What it holds is evidence, but it is no VM by itself.
    pub fn unlisted(self) -> Self {
        Self { is_listed: false, is_holder: false, ..self }
    }

    /// It is a VM because it goes on with these NICs of others.
    pub fn heir_of(self, nics: Vec<Nic>) -> Self {
        let mut vm = Self { inherited: Some(nics), ..self };
        vm.keep_inherited();
        vm
    }

    /// The same process, known as the VM from which it has come.
    pub fn continuing(self, vm: &InstanceInfo) -> Self {
        let InstanceInfo { hypervisor_pid, uid, nics, .. } = self.info;
        let info = InstanceInfo { hypervisor_pid, uid, nics, ..vm.clone() };
        Self { info, is_holder: false, ..self }
    }

    /// Takes in which TAPs the process holds. Where that may not be known, the command line of a trusted user's process
    /// must do.
    pub fn take_nics(&mut self, pid: u32, observer: &Observer, held: HeldNics) {
        let HeldNics { descriptors, uid, taps } = held;
        let is_trusted = observer.trust.is_trusted(uid);
        match taps {
            Ok(Taps { nics, claimed, uncounted, problem, kvm }) => {
                self.take_kvm(&kvm);
                self.is_looked_at = claimed.is_empty() || is_trusted;
                self.info.nics = nics;
                self.nics_problem = problem;
                // One whose name is no text is left out, too.
                self.has_lost_nics = !self.is_looked_at || self.nics_problem.is_some();
                if self.is_looked_at {
                    self.info.nics.extend(claimed);
                } else {
                    self.nics_problem = Some(not_evident(pid));
                }
                self.set_uncounted(uncounted);
            }
            Err(refused) => {
                (self.is_looked_at, self.has_lost_nics) = (false, false);
                self.info.nics = if is_trusted { self.named_nics.clone() } else { Vec::new() };
                self.set_uncounted(BTreeSet::new());
                self.nics_problem = Some(self.not_allowed(pid, is_trusted, &refused));
            }
        }
        self.descriptors = descriptors;
        self.info.uid = uid;
        self.keep_inherited();
        self.limit_nics(pid);
    }

    /// The command line of a known hypervisor says more than the vCPUs of now.
    fn take_kvm(&mut self, kvm: &HeldKvm) {
        self.has_vcpus = kvm.has_vcpus();
        if matches!(self.info.hypervisor, Hypervisor::Program(_)) && kvm.has_vcpus() {
            self.info.allocated_vcpus = kvm.vcpus().filter(|vcpus| *vcpus <= MAX_VCPUS);
        }
    }

    /// Whether its process held vCPUs of KVM at the last look.
    pub fn runs_by_kvm(&self) -> bool {
        self.has_vcpus
    }

    fn keep_inherited(&mut self) {
        if let Some(inherited) = &self.inherited {
            self.info.nics.retain(|nic| inherited.contains(nic));
        }
    }

    /// Whether the process has opened or closed something since. What came and went says nothing.
    pub fn holds_as_many(&self, descriptors: Option<u64>) -> bool {
        self.descriptors == descriptors
    }

    /// The command line names what was there at the start, descriptors tell of some that came later.
    fn set_uncounted(&mut self, mut held: BTreeSet<UncountedNic>) {
        // A vDPA device that was handed on as a descriptor has another name on the command line: it is one NIC.
        let is_vdpa = |nic: &&UncountedNic| nic.kind == UncountedKind::VhostVdpa;
        let only_held = |nic: &&UncountedNic| !self.named_uncounted.contains(nic);
        let mut pairs = held.iter().filter(is_vdpa).filter(only_held).count();
        for nic in &self.named_uncounted {
            let is_other_name = is_vdpa(&nic) && !held.contains(nic);
            match pairs.checked_sub(usize::from(is_other_name)) {
                Some(left) if is_other_name => pairs = left,
                _ => drop(held.insert(nic.clone())),
            }
        }
        self.info.uncounted = held.into_iter().collect();
    }

    fn limit_nics(&mut self, pid: u32) {
        let InstanceInfo { nics, uncounted, .. } = &mut self.info;
        let too_many = nics.len() > MAX_NICS || uncounted.len() > MAX_NICS;
        nics.truncate(MAX_NICS);
        uncounted.truncate(MAX_NICS);
        self.info.has_more_nics = too_many || self.has_lost_nics;
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

    fn not_allowed(&self, pid: u32, is_trusted: bool, error: &SourceError) -> SourceError {
        let taps: Vec<_> = self.named_nics.iter().map(|nic| nic.tap.as_str()).collect();
        let instead = match (taps.is_empty(), is_trusted) {
            (true, _) => "its command line names no TAP either".to_owned(),
            (false, true) => format!("taken from its command line: {}", taps.join(", ")),
            (false, false) => "its command line does not count, for its user is not in [trust]".to_owned(),
        };
        SourceError::Process {
            pid,
            problem: format!("its TAPs need CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH ({error}); {instead}"),
        }
    }
}

fn not_evident(pid: u32) -> SourceError {
    let problem = "the kernel does not say which of its TAPs are whose (CAP_SYS_PTRACE, CAP_NET_ADMIN and Linux 5.8), \
        and its user is not in [trust]: they are left out";
    SourceError::Process { pid, problem: problem.to_owned() }
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
