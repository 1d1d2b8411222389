//! One process, looked at closely: is it a VM, and which?

mod nics;

use std::iter;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use self::nics::Share;
use super::super::{ApiSocket, SourceError, shortened};
use super::cmdline::{self, ConfigFile, VmArgs};
use super::holdings::Holdings;
use super::identity::{identify, namespace, pod_uid};
use super::kvm;
use super::observer::Observer;
use super::program_file::{ProgramFile, is_fork, is_launcher};
use super::vcpus::Vcpus;
use crate::host::Host;
use crate::model::{Hypervisor, InstanceInfo, Nic, ProgramName, UnmonitoredNic};
use crate::procfs::executable::hypervisor;
use crate::sources::merge::fingerprints::Fingerprints;
use crate::sources::process::{ProcessDir, ReadError, argv};
use crate::sources::values::bounded::MAX_NICS;
use crate::sources::values::pci::networks;

/// A process that is a VM, or holds devices of one, with the open problems.
#[derive(Debug, Default)]
pub struct ProcessVm {
    pub pid: u32,
    pub info: InstanceInfo,
    pub start_ticks: u64,
    pub fingerprints: Fingerprints,
    /// Pid and start time of the process that was this VM before.
    pub came_from: Option<(u32, u64)>,
    /// Whether it is a VM by itself. Else another source names its process, whose devices are evidence.
    pub is_listed: bool,
    /// Whether it is known only for the devices that it holds.
    pub is_holder: bool,
    pub program: Option<ProgramFile>,
    /// Whether the kernel has confirmed the NICs of the process.
    pub is_looked_at: bool,
    /// The NICs that the process itself holds.
    own: Share,
    /// Processes that have come from this one and hold some of its NICs.
    pub heirs: Vec<(u32, Share)>,
    /// Whether the process was found as one that runs a VM by KVM.
    pub is_found_by_kvm: bool,
    /// The NICs of ended VMs that this process goes on with, and no others of those that it holds.
    pub inherited: Option<Vec<Nic>>,
    /// Whether the process held vCPUs of KVM.
    has_vcpus: bool,
    api_socket: Option<PathBuf>,
    /// NICs by the command line, for want of a look at the process's descriptors.
    named_nics: Vec<Nic>,
    named_unmonitored: Vec<UnmonitoredNic>,
    /// The config file of the command line.
    config_file: Option<Arc<ConfigFile>>,
    is_configured: bool,
    /// Whether its command line is too long to be parsed.
    has_long_line: bool,
    config_problem: Option<SourceError>,
    has_too_many_nics: bool,
    vcpus: Vcpus,
    /// How many descriptors the process had when its NICs were read.
    descriptors: Option<u64>,
    /// Whether all of its descriptors were looked at once.
    is_known_whole: bool,
    /// A look at its descriptors that has not ended.
    progress: Option<Box<Holdings>>,
}

/// `None`: not a VM, or not yet: a process may run another program later.
pub fn inspect(process: &ProcessDir, observer: &Observer) -> Result<Option<ProcessVm>, ReadError> {
    let Some(program) = process.executable()? else { return Ok(None) };
    let Some(hypervisor) = hypervisor(&program) else { return Ok(None) };
    inspect_as(process, observer, hypervisor, &program)
}

/// The same, of a process that runs this hypervisor.
pub fn inspect_as(
    process: &ProcessDir,
    observer: &Observer,
    hypervisor: Hypervisor,
    program: &str,
) -> Result<Option<ProcessVm>, ReadError> {
    if !observer.trust.may_run_vms(process.uid()) {
        observer.shut_out.fetch_add(1, Ordering::Relaxed);
        return Ok(None);
    }
    let stat = process.stat()?;
    let argv = process.argv()?;
    // Without arguments it is about to end.
    if stat.is_dead() || argv.is_empty() || is_fork(process, &stat, hypervisor, &argv) {
        return Ok(None);
    }
    if argv::is_too_long(&argv) {
        let info = info(process.pid, hypervisor, &VmArgs::default());
        let mut vm = ProcessVm::new(process, info, stat.start_ticks);
        vm.has_long_line = true;
        return vm.with_nics(process, observer, None).map(Some);
    }
    let Some(mut args) = cmdline::parse(hypervisor, program, &argv) else {
        return Ok(None);
    };
    if args.daemonizes && is_launcher(process, &stat) {
        return Ok(None);
    }
    let (id, name, fingerprints) = identify(process, mem::take(&mut args.identity));
    // Claims of a process count only where its user is trusted.
    let is_trusted = observer.trust.is_trusted(process.uid());
    let namespace = name.as_deref().filter(|_| is_trusted).and_then(|name| namespace(&argv, name));
    let unnamed = info(process.pid, hypervisor, &args);
    let id = id.as_deref().map_or_else(|| unnamed.id.clone(), shortened);
    let name = name.as_deref().map_or_else(|| id.clone(), shortened);
    let info = InstanceInfo { id, name, namespace, ..unnamed };
    let vm = ProcessVm {
        fingerprints,
        api_socket: args.api_socket.take().map(PathBuf::from),
        named_unmonitored: networks(process.host, mem::take(&mut args.unmonitored)),
        named_nics: args.taps.drain(..).map(Nic::local).collect(),
        config_file: args.config_file.take().map(Arc::new),
        ..ProcessVm::new(process, info, stat.start_ticks)
    };
    vm.with_nics(process, observer, None).map(Some)
}

impl ProcessVm {
    fn new(process: &ProcessDir, info: InstanceInfo, start_ticks: u64) -> Self {
        let info = InstanceInfo { pod_uid: pod_uid(process), ..info };
        Self {
            pid: process.pid,
            start_ticks,
            is_listed: true,
            program: ProgramFile::of(process),
            vcpus: at_start(&info),
            info,
            ..Self::default()
        }
    }

    /// With the devices of its process.
    fn with_nics(
        mut self,
        process: &ProcessDir,
        observer: &Observer,
        progress: Option<Holdings>,
    ) -> Result<Self, ReadError> {
        self.take_nics(Holdings::read(process, observer, progress)?);
        Ok(self)
    }

    /// A process of which nothing is known but that it holds devices.
    pub fn holder(
        process: &ProcessDir,
        observer: &Observer,
        progress: Option<Holdings>,
    ) -> Result<Self, ReadError> {
        let stat = process.stat()?;
        if stat.is_dead() {
            return Err(ReadError::Gone);
        }
        let info = info(process.pid, Hypervisor::Other, &VmArgs::default());
        let vm = Self { is_holder: true, ..Self::new(process, info, stat.start_ticks) };
        vm.with_nics(process, observer, progress)
    }

    /// A process that runs a VM by KVM in a program of which nothing else is known.
    pub fn of_kvm(process: &ProcessDir, observer: &Observer, program: &str) -> Result<Self, ReadError> {
        let stat = process.stat()?;
        let program = if program.is_empty() { "other" } else { program };
        let kvm::KvmIdentity { id, name, fingerprints } = kvm::identity(process, &stat, program);
        let hypervisor = Hypervisor::Program(ProgramName::new(program));
        let info = InstanceInfo { id, name, ..info(process.pid, hypervisor, &VmArgs::default()) };
        let vm = Self { fingerprints, ..Self::new(process, info, stat.start_ticks) };
        vm.with_nics(process, observer, None)
    }

    /// Its devices are evidence, but it is no VM by itself.
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
    pub fn continuing(self, vm: &Self) -> Self {
        let InstanceInfo { hypervisor_pid, uid, nics, .. } = self.info;
        let info = InstanceInfo { hypervisor_pid, uid, nics, ..vm.info.clone() };
        let (fingerprints, came_from) = (vm.fingerprints, Some((vm.pid, vm.start_ticks)));
        Self { vcpus: at_start(&info), info, fingerprints, came_from, is_holder: false, ..self }
    }

    /// Pid and start time, which no other process has.
    pub fn key(&self) -> (u32, u64) {
        (self.pid, self.start_ticks)
    }

    pub fn holds_any(&self, nics: &[Nic]) -> bool {
        self.info.nics.iter().any(|nic| nics.contains(nic))
    }

    /// The file that its command line names.
    pub fn config_file(&self) -> Option<&Arc<ConfigFile>> {
        self.config_file.as_ref()
    }

    /// Adds the sizes and NICs of that file, once.
    pub fn configure(&mut self, host: &Host, config: Result<&VmArgs, SourceError>) {
        self.config_problem = None;
        match config {
            Ok(args) if !self.is_configured => {
                self.is_configured = true;
                self.vcpus = Vcpus { at_start: args.vcpus, most: args.max_vcpus, ..self.vcpus };
                self.info.allocated_vcpus = self.vcpus.now();
                self.info.max_vcpus = self.vcpus.most;
                self.info.allocated_memory_bytes = args.memory_bytes;
                self.named_nics = args.taps.iter().map(Nic::local).collect();
                self.named_unmonitored = networks(host, args.unmonitored.clone());
            }
            Ok(_) => {}
            Err(problem) => self.config_problem = Some(problem),
        }
    }

    /// Where its VMM can be asked.
    pub fn api_socket(&self) -> Option<ApiSocket> {
        Some(ApiSocket {
            hypervisor: self.info.hypervisor,
            pid: self.pid,
            start_ticks: self.start_ticks,
            path: self.api_socket.clone()?,
            nics: self.info.nics.clone(),
        })
    }

    pub fn problems(&self) -> Vec<SourceError> {
        let shares = iter::once(&self.own).chain(self.heirs.iter().map(|(_, share)| share));
        let mut problems: Vec<_> =
            shares.filter_map(Share::problem).chain(&self.config_problem).cloned().collect();
        let too_long = || {
            format!(
                "its command line has more than {} words or {} bytes: its name and sizes are not taken from there",
                argv::MAX_WORDS,
                argv::MAX_BYTES,
            )
        };
        let too_many = || format!("it has more than {MAX_NICS} network interfaces: the others are left out");
        let of_vcpus = |(by_kvm, most)| {
            format!(
                "KVM has made {by_kvm} vCPUs for it, and it has no more than {most} on its command line or in its file: \
                their number is not known"
            )
        };
        let long_line = self.has_long_line.then(too_long);
        let texts = long_line.into_iter().chain(self.has_too_many_nics.then(too_many));
        // A program that is not known by name has no limit for its vCPUs.
        let excess = self.vcpus.excess().filter(|_| !matches!(self.info.hypervisor, Hypervisor::Program(_)));
        let texts = texts.chain(excess.map(of_vcpus));
        problems.extend(texts.map(|problem| SourceError::process(self.pid, problem)));
        problems
    }
}

fn at_start(info: &InstanceInfo) -> Vcpus {
    Vcpus { at_start: info.allocated_vcpus, most: info.max_vcpus, by_kvm: None }
}

fn info(pid: u32, hypervisor: Hypervisor, args: &VmArgs) -> InstanceInfo {
    let id = format!("{hypervisor}-{pid}");
    InstanceInfo {
        name: id.clone(),
        id,
        hypervisor: if args.is_xen { Hypervisor::Xen } else { hypervisor },
        hypervisor_pid: Some(pid),
        nics: Vec::new(),
        allocated_vcpus: args.vcpus,
        max_vcpus: args.max_vcpus,
        allocated_memory_bytes: args.memory_bytes,
        ..InstanceInfo::default()
    }
}
