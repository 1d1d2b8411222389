//! VMs that the configuration gives: for hypervisors that [`proc_scan`](super::proc_scan) does not know, or
//! to give a VM another id or name.
//!
//! A VM is listed always, also when its process is not known or not there: what cannot be read of it is then
//! missing, and the readers say so. A pid file is read at each call, for a VM that was started again has
//! another pid. A pid that means another process by now is left out, and so is a device that is no TAP.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::written_pid::WrittenPid;
use super::{InstanceSource, Listing, SourceDef, SourceError, files, is_device_name};
use crate::host::Host;
use crate::model::{Hypervisor, InstanceInfo, Nic};

/// A pid and a newline; some programs write a line or two more.
const PID_FILE_LIMIT: u64 = 4 << 10;

/// What the device of a TUN or TAP, a macvtap or an ipvtap has in its directory in sysfs, and no other.
const TAP_MARKS: &[&str] = &["tun_flags", "macvtap", "ipvtap"];

pub const SOURCE: SourceDef = SourceDef {
    name: "static_list",
    help: "VMs that the configuration gives",
    configure: |section, host| {
        let config: Config = section.options()?;
        check(&config.vms).map_err(|problem| section.refusal("vms", &problem))?;
        Ok((!config.vms.is_empty()).then(|| Box::new(StaticList::new(config.vms, host.clone())) as _))
    },
};

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    vms: Vec<StaticVm>,
}

/// A VM as it is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticVm {
    pub id: String,
    /// The id, unless given.
    pub name: Option<String>,
    pub pid: Option<u32>,
    /// Read only when `pid` is not given.
    pub pid_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "device_names")]
    pub taps: Vec<String>,
    pub vcpus: Option<u32>,
    pub memory_bytes: Option<u64>,
    #[serde(default)]
    pub hypervisor: Hypervisor,
}

#[derive(Debug)]
pub struct StaticList {
    host: Host,
    vms: Vec<(StaticVm, WrittenPid)>,
}

impl StaticList {
    pub fn new(vms: Vec<StaticVm>, host: Host) -> Self {
        Self { host, vms: vms.into_iter().map(|vm| (vm, WrittenPid::default())).collect() }
    }
}

/// What the types do not say.
fn check(vms: &[StaticVm]) -> Result<(), String> {
    let mut ids = HashSet::new();
    let mut holders = HashMap::new();
    for vm in vms {
        if vm.id.is_empty() {
            return Err("an id is empty".to_owned());
        }
        if !ids.insert(&vm.id) {
            return Err(format!("the id {:?} is there twice", vm.id));
        }
        if vm.pid == Some(0) {
            return Err(format!("pid 0 of {:?} is no process", vm.id));
        }
        for tap in &vm.taps {
            match holders.insert(tap, &vm.id) {
                None => {}
                Some(id) if *id == vm.id => return Err(format!("the TAP {tap:?} of {id:?} is there twice")),
                Some(id) => return Err(format!("the TAP {tap:?} is given to {id:?} and to {:?}", vm.id)),
            }
        }
    }
    Ok(())
}

impl InstanceSource for StaticList {
    fn list_running_instances_for_metrics(&mut self) -> Result<Listing, SourceError> {
        let mut listing = Listing::default();
        for (vm, written_pid) in &mut self.vms {
            let pid = pid(&self.host, vm, written_pid).unwrap_or_else(|problem| {
                listing.problems.push(problem);
                None
            });
            let nics = nics(&self.host, vm, &mut listing.problems);
            listing.instances.push(instance(vm, pid, nics));
        }
        Ok(listing)
    }
}

fn pid(host: &Host, vm: &StaticVm, written_pid: &mut WrittenPid) -> Result<Option<u32>, SourceError> {
    let (pid, file) = match (vm.pid, vm.pid_file.as_deref()) {
        (Some(pid), _) => (pid, None),
        (None, Some(path)) => (read_pid(path)?, Some(path)),
        (None, None) => return Ok(None),
    };
    written_pid.check(host, pid, file)?;
    Ok(Some(pid))
}

/// A device that is not there is listed: the readers say so, and it may come.
fn nics(host: &Host, vm: &StaticVm, problems: &mut Vec<SourceError>) -> Vec<Nic> {
    let (taps, others): (Vec<_>, Vec<_>) = vm.taps.iter().partition(|tap| may_be_tap(host, tap));
    problems.extend(others.into_iter().map(|tap| SourceError::Content {
        path: host.net_device(tap),
        problem: format!("{tap} is no TAP, so it is left out of {:?}", vm.id),
    }));
    taps.into_iter().map(Nic::local).collect()
}

/// What goes over another device, like the host's uplink, is not one VM's.
fn may_be_tap(host: &Host, name: &str) -> bool {
    let device = host.net_device(name);
    TAP_MARKS.iter().any(|mark| device.join(mark).exists()) || !device.exists()
}

fn instance(vm: &StaticVm, pid: Option<u32>, nics: Vec<Nic>) -> InstanceInfo {
    InstanceInfo {
        id: vm.id.clone(),
        name: vm.name.as_ref().unwrap_or(&vm.id).clone(),
        hypervisor: vm.hypervisor,
        hypervisor_pid: pid,
        nics,
        allocated_vcpus: vm.vcpus,
        allocated_memory_bytes: vm.memory_bytes,
    }
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
    line.parse().ok().filter(|pid| *pid > 0).ok_or_else(|| SourceError::Content {
        path: path.to_owned(),
        problem: format!("no pid: {:?}", line.chars().take(32).collect::<String>()),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// A host with nothing in it.
    fn host(dir: &TempDir) -> Host {
        Host::new(dir.path().join("proc"), dir.path().join("sys"))
    }

    fn messages(problems: &[SourceError]) -> Vec<String> {
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_device_that_is_no_tap_is_no_nic() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(&dir);
        for directory in ["lo", "tap0", "macvtap0/macvtap"] {
            fs::create_dir_all(host.net_device(directory)).unwrap();
        }
        fs::write(host.net_device("tap0/tun_flags"), "0x1002\n").unwrap();
        let taps = ["tap0", "lo", "macvtap0", "later"].map(str::to_owned).to_vec();
        let vm = StaticVm { id: "a".into(), taps, ..StaticVm::default() };
        let listing = StaticList::new(vec![vm], host).list_running_instances_for_metrics().unwrap();
        assert_eq!(listing.instances[0].nics, ["tap0", "macvtap0", "later"].map(Nic::local));
        let path = dir.path().join("sys/class/net/lo");
        let problem = format!("{}: lo is no TAP, so it is left out of \"a\"", path.display());
        assert_eq!(messages(&listing.problems), [problem]);
    }

    #[test]
    fn a_pid_that_went_to_another_process_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(&dir);
        fs::create_dir_all(host.process(42)).unwrap();
        let vm = StaticVm { id: "a".into(), pid: Some(42), ..StaticVm::default() };
        let mut list = StaticList::new(vec![vm], host.clone());
        let mut call = |start_ticks: u64| {
            let stat = format!("42 (x) S 1 42 42 0 -1 0 1 2 3 4 10 20 0 0 20 0 1 0 {start_ticks} 1 2\n");
            fs::write(host.process(42).join("stat"), stat).unwrap();
            let listing = list.list_running_instances_for_metrics().unwrap();
            (listing.instances[0].hypervisor_pid, messages(&listing.problems))
        };
        assert_eq!(call(7), (Some(42), vec![]));
        let problem = "process 42: not the process that had this pid before".to_owned();
        assert_eq!(call(8), (None, vec![problem]));
        assert_eq!(call(7), (Some(42), vec![]));
    }

    #[test]
    fn from_toml() {
        let config: Config = toml::from_str(
            r#"
            [[vms]]
            id = "web"

            [[vms]]
            id = "db"
            name = "The database"
            pid = 42
            taps = ["tap0", "tap1"]
            vcpus = 2
            memory_bytes = 1073741824
            hypervisor = "cloud-hypervisor"
            "#,
        )
        .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let listing = StaticList::new(config.vms, host(&dir)).list_running_instances_for_metrics().unwrap();
        let web = InstanceInfo { id: "web".into(), name: "web".into(), ..InstanceInfo::default() };
        let db = InstanceInfo {
            id: "db".into(),
            name: "The database".into(),
            hypervisor: Hypervisor::CloudHypervisor,
            hypervisor_pid: Some(42),
            nics: vec![Nic::local("tap0"), Nic::local("tap1")],
            allocated_vcpus: Some(2),
            allocated_memory_bytes: Some(1 << 30),
        };
        assert_eq!(listing.instances, [web, db]);
        assert!(listing.problems.is_empty());
    }

    #[test]
    fn a_key_that_is_not_known_is_an_error() {
        let error = toml::from_str::<Config>("[[vms]]\nid = \"a\"\ntap = \"tap0\"").unwrap_err().to_string();
        assert!(error.contains("unknown field `tap`") && error.contains("line 3"), "{error}");
    }

    #[test]
    fn a_tap_that_cannot_be_is_an_error() {
        let config = "[[vms]]\nid = \"a\"\ntaps = [\"tap0\", \"../lo\"]";
        let error = toml::from_str::<Config>(config).unwrap_err().to_string();
        assert!(error.contains("\"../lo\" cannot be the name") && error.contains("line 3"), "{error}");
    }

    #[test]
    fn a_pid_file_is_read_at_each_call() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("vm.pid");
        let vm = StaticVm { id: "a".into(), pid_file: Some(pid_file.clone()), ..StaticVm::default() };
        let mut list = StaticList::new(vec![vm], host(&dir));
        let mut call = || {
            let listing = list.list_running_instances_for_metrics().unwrap();
            (listing.instances[0].hypervisor_pid, messages(&listing.problems).join("; "))
        };

        let (pid, problem) = call();
        assert_eq!(pid, None);
        assert!(problem.starts_with("cannot read ") && problem.contains("vm.pid: No such file"), "{problem}");

        for (content, pid) in [("42\n", 42), ("43", 43), (" 44 \nmore\n", 44)] {
            fs::write(&pid_file, content).unwrap();
            assert_eq!(call(), (Some(pid), String::new()));
        }

        for content in ["", "0", "-1", "pid", "99999999999", "4 2"] {
            fs::write(&pid_file, content).unwrap();
            let expected = format!("{}: no pid: {content:?}", pid_file.display());
            assert_eq!(call(), (None, expected));
        }

        fs::write(&pid_file, vec![b'1'; 8 << 10]).unwrap();
        let (pid, problem) = call();
        assert_eq!(pid, None);
        assert!(problem.ends_with("larger than 4096 bytes"), "{problem}");
    }
}
