//! A VM as somebody describes it to this daemon: in the configuration, in a file of a directory, or over the socket.
//!
//! A VM is listed always, also when its process is not known or not there: what cannot be read of it is then
//! missing, and the readers say so. A pid file is read at each call, for a VM that was started again has
//! another pid. A pid that means another process by now is left out, and so is a device that is no TAP.

use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::written_pid::WrittenPid;
use super::{SourceError, files, is_device_name};
use crate::host::Host;
use crate::model::{Hypervisor, InstanceInfo, Nic};

/// A pid and a newline; some programs write a line or two more.
const PID_FILE_LIMIT: u64 = 4 << 10;

/// What the device of a TUN or TAP, a macvtap or an ipvtap has in its directory in sysfs, and no other.
const TAP_MARKS: &[&str] = &["tun_flags", "macvtap", "ipvtap"];

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DescribedVm {
    /// Where a path or a file's name has the id, it may be left out.
    pub id: String,
    /// The id, unless given.
    pub name: Option<String>,
    /// Of the hypervisor process, as the host sees it.
    pub pid: Option<u32>,
    /// Read only when `pid` is not given.
    #[schema(value_type = Option<String>)]
    pub pid_file: Option<PathBuf>,
    /// Names of its TAPs.
    #[serde(deserialize_with = "device_names")]
    pub taps: Vec<String>,
    /// How many vCPUs it has.
    pub vcpus: Option<u32>,
    /// The memory that it is allotted, in bytes.
    pub memory_bytes: Option<u64>,
    /// What runs it.
    pub hypervisor: Hypervisor,
    /// Whose VM it is.
    pub project: Option<String>,
}

impl DescribedVm {
    /// What the types do not say.
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

    /// `written` is the file that has the pid, if it is not in the configuration; `seen` is kept from call to call.
    pub fn instance(
        &self,
        host: &Host,
        written: Option<&Path>,
        seen: &mut WrittenPid,
        problems: &mut Vec<SourceError>,
    ) -> InstanceInfo {
        let pid = self.checked_pid(host, written, seen).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        InstanceInfo {
            id: self.id.clone(),
            name: self.name.as_ref().unwrap_or(&self.id).clone(),
            hypervisor: self.hypervisor,
            hypervisor_pid: pid,
            nics: self.nics(host, problems),
            allocated_vcpus: self.vcpus,
            allocated_memory_bytes: self.memory_bytes,
            project: self.project.clone(),
            ..InstanceInfo::default()
        }
    }

    fn checked_pid(
        &self,
        host: &Host,
        written: Option<&Path>,
        seen: &mut WrittenPid,
    ) -> Result<Option<u32>, SourceError> {
        let (pid, file) = match (self.pid, self.pid_file.as_deref()) {
            (Some(pid), _) => (pid, written),
            (None, Some(path)) => (read_pid(path)?, Some(path)),
            (None, None) => return Ok(None),
        };
        seen.check(host, pid, file)?;
        Ok(Some(pid))
    }

    /// A device that is not there is listed: the readers say so, and it may come.
    fn nics(&self, host: &Host, problems: &mut Vec<SourceError>) -> Vec<Nic> {
        let (taps, others): (Vec<_>, Vec<_>) = self.taps.iter().partition(|tap| may_be_tap(host, tap));
        problems.extend(others.into_iter().map(|tap| {
            let problem = format!("{tap} is no TAP, so it is left out of {:?}", self.id);
            SourceError::content(host.net_device(tap), problem)
        }));
        taps.into_iter().map(Nic::local).collect()
    }
}

/// What goes over another device, like the host's uplink, is not one VM's.
fn may_be_tap(host: &Host, name: &str) -> bool {
    let device = host.net_device(name);
    TAP_MARKS.iter().any(|mark| device.join(mark).exists()) || !device.exists()
}

fn device_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names: Vec<String> = Vec::deserialize(deserializer)?;
    match names.iter().find(|name| !is_device_name(name)) {
        Some(bad) => Err(D::Error::custom(format!("{bad:?} cannot be the name of a network device"))),
        None => Ok(names),
    }
}

/// The first line counts.
fn read_pid(path: &Path) -> Result<u32, SourceError> {
    let content = files::read(path, PID_FILE_LIMIT).map_err(|error| SourceError::io("read", path, error))?;
    let content = String::from_utf8_lossy(&content);
    let line = content.lines().next().unwrap_or_default().trim();
    line.parse().ok().filter(|pid| *pid > 0).ok_or_else(|| {
        let line: String = line.chars().take(32).collect();
        SourceError::content(path, format!("no pid: {line:?}"))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A VM and the host that it is on.
    struct Case {
        dir: tempfile::TempDir,
        vm: DescribedVm,
        seen: WrittenPid,
    }

    impl Case {
        fn new(vm: DescribedVm) -> Self {
            Self { dir: tempfile::tempdir().unwrap(), vm, seen: WrittenPid::default() }
        }

        fn host(&self) -> Host {
            Host::new(self.dir.path().join("proc"), self.dir.path().join("sys"))
        }

        fn instance(&mut self) -> (InstanceInfo, Vec<String>) {
            let (host, mut problems) = (self.host(), Vec::new());
            let instance = self.vm.instance(&host, None, &mut self.seen, &mut problems);
            (instance, problems.iter().map(ToString::to_string).collect())
        }

        fn pid(&mut self) -> (Option<u32>, String) {
            let (instance, problems) = self.instance();
            (instance.hypervisor_pid, problems.join("; "))
        }
    }

    #[test]
    fn a_device_that_is_no_tap_is_no_nic() {
        let taps = ["tap0", "lo", "macvtap0", "later"].map(str::to_owned).to_vec();
        let mut case = Case::new(DescribedVm { id: "a".into(), taps, ..DescribedVm::default() });
        let host = case.host();
        for directory in ["lo", "tap0", "macvtap0/macvtap"] {
            fs::create_dir_all(host.net_device(directory)).unwrap();
        }
        fs::write(host.net_device("tap0/tun_flags"), "0x1002\n").unwrap();
        let (instance, problems) = case.instance();
        assert_eq!(instance.nics, ["tap0", "macvtap0", "later"].map(Nic::local));
        let lo = host.net_device("lo");
        assert_eq!(problems, [format!("{}: lo is no TAP, so it is left out of \"a\"", lo.display())]);
    }

    #[test]
    fn a_pid_that_went_to_another_process_is_left_out() {
        let mut case = Case::new(DescribedVm { id: "a".into(), pid: Some(42), ..DescribedVm::default() });
        let process = case.host().process(42);
        fs::create_dir_all(&process).unwrap();
        let mut call = |start_ticks: u64| {
            let stat = format!("42 (x) S 1 42 42 0 -1 0 1 2 3 4 10 20 0 0 20 0 1 0 {start_ticks} 1 2\n");
            fs::write(process.join("stat"), stat).unwrap();
            case.pid()
        };
        assert_eq!(call(7), (Some(42), String::new()));
        let problem = "process 42: not the process that had this pid before".to_owned();
        assert_eq!(call(8), (None, problem));
        assert_eq!(call(7), (Some(42), String::new()));
    }

    #[test]
    fn a_pid_file_is_read_at_each_call() {
        let mut case = Case::new(DescribedVm { id: "a".into(), ..DescribedVm::default() });
        let pid_file = case.dir.path().join("vm.pid");
        case.vm.pid_file = Some(pid_file.clone());

        let (pid, problem) = case.pid();
        assert_eq!(pid, None);
        assert!(problem.starts_with("cannot read ") && problem.contains("vm.pid: No such file"), "{problem}");

        for (content, pid) in [("42\n", 42), ("43", 43), (" 44 \nmore\n", 44)] {
            fs::write(&pid_file, content).unwrap();
            assert_eq!(case.pid(), (Some(pid), String::new()));
        }

        for content in ["", "0", "-1", "pid", "99999999999", "4 2"] {
            fs::write(&pid_file, content).unwrap();
            let expected = format!("{}: no pid: {content:?}", pid_file.display());
            assert_eq!(case.pid(), (None, expected));
        }

        fs::write(&pid_file, vec![b'1'; 8 << 10]).unwrap();
        let (pid, problem) = case.pid();
        assert_eq!(pid, None);
        assert!(problem.ends_with("larger than 4096 bytes"), "{problem}");
    }
}
