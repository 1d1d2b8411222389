//! VMs that operators and orchestrators declare, in the configuration, in files or by push.
//!
//! A declared VM without a process is always listed; readers report the missing values. A VM with a pid or pid file is
//! listed while that process runs. Without the process its TAPs may belong to another VM. Each call reads the pid file
//! again, since a restarted VM has another pid.

pub mod hypervisor_pid;
pub mod pid_guard;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use self::pid_guard::PidGuard;
use super::{Listing, SourceContext, SourceError, files};
use crate::model::{Hypervisor, InstanceInfo, Nic, is_device_name};

/// A pid and a newline; some programs write a line or two more.
const PID_FILE_LIMIT: u64 = 4 << 10;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema), schema(as = DescribedVm))]
#[serde(default, deny_unknown_fields)]
pub struct DeclaredVm {
    /// Optional if the path or the name of the file has it.
    pub id: String,
    /// The id by default.
    pub name: Option<String>,
    /// The pid of the hypervisor process on the host.
    pub pid: Option<u32>,
    /// A file with the pid, read only without `pid`.
    #[cfg_attr(feature = "daemon", schema(value_type = Option<String>))]
    pub pid_file: Option<PathBuf>,
    /// Names of its TAPs.
    #[serde(deserialize_with = "device_names")]
    pub taps: Vec<String>,
    /// Number of its vCPUs.
    pub vcpus: Option<u32>,
    /// Its memory in bytes.
    pub memory_bytes: Option<u64>,
    /// The hypervisor of the VM.
    pub hypervisor: Hypervisor,
    /// The project of the VM.
    pub project: Option<String>,
}

impl DeclaredVm {
    /// Checks the rules that the types cannot express.
    pub fn check(&self) -> Result<(), String> {
        if self.id.is_empty() {
            return Err("an id is empty".to_owned());
        }
        if self.pid == Some(0) {
            return Err(format!("pid 0 of {:?} is no process", self.id));
        }
        let mut taps = self.taps.iter().enumerate();
        match taps.find(|(at, tap)| self.taps[..*at].contains(tap)) {
            Some((_, tap)) => Err(format!("the TAP {tap:?} of {:?} is there twice", self.id)),
            None => Ok(()),
        }
    }

    /// `written` is the file that has the pid, if it is not in the configuration; `guard` is kept from call to call.
    pub fn list(
        &self,
        context: &SourceContext,
        written: Option<&Path>,
        guard: &mut PidGuard,
        listing: &mut Listing,
    ) {
        let pid = self.checked_pid(context, written, guard, &mut listing.problems);
        let names_process = self.pid.is_some() || self.pid_file.is_some();
        let vm = InstanceInfo {
            id: self.id.clone(),
            name: self.name.as_ref().unwrap_or(&self.id).clone(),
            hypervisor: self.hypervisor,
            hypervisor_pid: pid,
            allocated_vcpus: self.vcpus,
            allocated_memory_bytes: self.memory_bytes,
            project: self.project.clone(),
            ..InstanceInfo::default()
        };
        if names_process && pid.is_none() {
            listing.ended.push(vm);
        } else {
            // A missing device is listed: the readers report it, and it may appear.
            let nics = self.taps.iter().map(Nic::local).collect();
            listing.instances.push(InstanceInfo { nics, ..vm });
        }
    }

    /// The process, if one is named and is still the one that was meant.
    fn checked_pid(
        &self,
        context: &SourceContext,
        written: Option<&Path>,
        guard: &mut PidGuard,
        problems: &mut Vec<SourceError>,
    ) -> Option<u32> {
        let (pid, written) = match (self.pid, self.pid_file.as_deref()) {
            (Some(pid), _) => (pid, written.map(|path| (path, modified(path)))),
            (None, Some(path)) => {
                let (pid, modified) = pid_in(path, context, guard, problems)?;
                (pid, Some((path, modified)))
            }
            (None, None) => return None,
        };
        match guard.check(&context.processes, pid, written) {
            Ok(()) => Some(pid),
            Err(problem) => {
                problems.push(problem);
                None
            }
        }
    }
}

fn device_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names: Vec<String> = Vec::deserialize(deserializer)?;
    match names.iter().find(|name| !is_device_name(name)) {
        Some(bad) => Err(D::Error::custom(format!("{bad:?} cannot be the name of a network device"))),
        None => Ok(names),
    }
}

/// While the file is half, cannot be read or does not count, the pid that it had before counts.
fn pid_in(
    path: &Path,
    context: &SourceContext,
    guard: &PidGuard,
    problems: &mut Vec<SourceError>,
) -> Option<(u32, Option<SystemTime>)> {
    match read_pid(path, context) {
        Ok(found) => Some(found),
        Err(problem) => {
            let is_gone = problem.io_kind() == Some(io::ErrorKind::NotFound);
            problems.push(problem);
            guard.last().filter(|_| !is_gone)
        }
    }
}

/// The first line counts. Messages never quote the file.
fn read_pid(path: &Path, context: &SourceContext) -> Result<(u32, Option<SystemTime>), SourceError> {
    let failed = |error| SourceError::io("read", path, error);
    let (file, authors) = context.operators.open(path).map_err(failed)?;
    let content = files::read_located(file, PID_FILE_LIMIT).map_err(failed)?;
    let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let pid = str::from_utf8(line).ok().and_then(|line| line.trim().parse().ok()).filter(|pid| *pid > 0);
    let pid = pid.ok_or_else(|| SourceError::content(path, "there is no pid in it"))?;
    authors.may_name(&context.processes, pid).map_err(|problem| SourceError::content(path, problem))?;
    Ok((pid, authors.modified()))
}

/// When an operator's file was last written.
fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|file| file.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::proc_scan::fixture::{Fake, Fixture};

    /// A VM and the host that it is on.
    struct Case {
        fixture: Fixture,
        vm: DeclaredVm,
        guard: PidGuard,
    }

    impl Case {
        fn new(vm: DeclaredVm) -> Self {
            Self { fixture: Fixture::new(), vm, guard: PidGuard::default() }
        }

        fn listing(&mut self) -> (Listing, String) {
            let mut listing = Listing::default();
            self.vm.list(&self.fixture.context(), None, &mut self.guard, &mut listing);
            assert_eq!(listing.instances.len() + listing.ended.len(), 1);
            let problems = listing.texts().join("; ");
            (listing, problems)
        }

        /// `None` where the VM has ended.
        fn pid(&mut self) -> (Option<u32>, String) {
            let (listing, problems) = self.listing();
            (listing.instances.first().and_then(|vm| vm.hypervisor_pid), problems)
        }
    }

    #[test]
    fn a_reused_pid_is_left_out() {
        let mut case = Case::new(DeclaredVm { id: "a".into(), pid: Some(42), ..DeclaredVm::default() });
        let mut call = |start: u64| {
            case.fixture.put(&Fake { pid: 42, start, ..Fake::QEMU });
            case.pid()
        };
        assert_eq!(call(7), (Some(42), String::new()));
        let problem = "process 42: not the process that had this pid before".to_owned();
        assert_eq!(call(8), (None, problem));
        assert_eq!(call(7), (Some(42), String::new()));
    }

    /// It keeps its sizes and loses its TAPs.
    #[test]
    fn a_vm_without_its_process_has_ended() {
        let taps = vec!["tap0".to_owned()];
        let vm = DeclaredVm { id: "a".into(), taps, vcpus: Some(2), ..DeclaredVm::default() };
        let mut case = Case::new(vm.clone());
        assert_eq!(case.listing().0.instances[0].nics, [Nic::local("tap0")], "no process is named");
        let missing = Some(case.fixture.path("vm.pid"));
        for vm in [
            DeclaredVm { pid: Some(42), ..vm.clone() },
            DeclaredVm { pid_file: missing.clone(), ..vm.clone() },
        ] {
            case.vm = vm;
            let (listing, problems) = case.listing();
            let [ended] = &listing.ended[..] else { panic!("{listing:?}") };
            assert_eq!(
                (ended.hypervisor_pid, &ended.nics[..], ended.allocated_vcpus),
                (None, &[][..], Some(2))
            );
            assert!(!problems.is_empty());
        }
        case.fixture.put(&Fake { pid: 42, ..Fake::QEMU });
        case.vm.pid = Some(42);
        assert_eq!(case.listing().0.instances[0].nics, [Nic::local("tap0")]);
    }

    #[test]
    fn a_pid_file_is_read_at_each_call() {
        let mut case = Case::new(DeclaredVm { id: "a".into(), ..DeclaredVm::default() });
        let pid_file = case.fixture.path("vm.pid");
        case.vm.pid_file = Some(pid_file.clone());

        let (pid, problem) = case.pid();
        assert_eq!(pid, None);
        assert!(problem.starts_with("cannot read ") && problem.contains("vm.pid: No such file"), "{problem}");

        for (content, pid) in [("42\n", 42), ("43", 43), (" 44 \nmore\n", 44)] {
            case.fixture.put(&Fake { pid, ..Fake::QEMU });
            fs::write(&pid_file, content).unwrap();
            assert_eq!(case.pid(), (Some(pid), String::new()));
        }

        for content in ["", "0", "-1", "pid", "99999999999", "4 2"] {
            fs::write(&pid_file, content).unwrap();
            let expected = format!("{}: there is no pid in it", pid_file.display());
            assert_eq!(case.pid(), (Some(44), expected), "its last pid counts");
        }

        fs::write(&pid_file, vec![b'1'; 8 << 10]).unwrap();
        case.fixture.end(44);
        let (pid, problem) = case.pid();
        assert_eq!(pid, None);
        let problem = problem.strip_suffix("; process 44 is not there, or has ended").unwrap();
        assert!(problem.ends_with("larger than 4096 bytes"), "{problem}");
    }
}
