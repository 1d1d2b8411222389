//! VMs that the configuration gives: for hypervisors that [`proc_scan`](super::proc_scan) does not know, or
//! to give a VM another id or name.
//!
//! A VM is listed always, also when its process is not known or not there: what cannot be read of it is then
//! missing, and the readers say so. A pid file is read at each call, for a VM that was started again has
//! another pid.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{InstanceSource, Listing, SourceDef, SourceError, files, is_device_name};
use crate::model::{Hypervisor, InstanceInfo, Nic};

/// A pid and a newline; some programs write a line or two more.
const PID_FILE_LIMIT: u64 = 4 << 10;

pub const SOURCE: SourceDef = SourceDef {
    name: "static_list",
    help: "VMs that the configuration gives",
    configure: |section, _| {
        let config: Config = section.options()?;
        check(&config.vms).map_err(|problem| section.refusal("vms", &problem))?;
        Ok((!config.vms.is_empty()).then(|| Box::new(StaticList::new(config.vms)) as _))
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

#[derive(Clone, Debug)]
pub struct StaticList {
    vms: Vec<StaticVm>,
}

impl StaticList {
    pub fn new(vms: Vec<StaticVm>) -> Self {
        Self { vms }
    }
}

/// What the types do not say.
fn check(vms: &[StaticVm]) -> Result<(), String> {
    let mut ids = HashSet::new();
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
    }
    Ok(())
}

impl InstanceSource for StaticList {
    fn list_running_instances_for_metrics(&mut self) -> Result<Listing, SourceError> {
        let mut listing = Listing::default();
        for vm in &self.vms {
            let pid = match (vm.pid, &vm.pid_file) {
                (None, Some(path)) => read_pid(path).map_err(|problem| listing.problems.push(problem)).ok(),
                (pid, _) => pid,
            };
            listing.instances.push(instance(vm, pid));
        }
        Ok(listing)
    }
}

fn instance(vm: &StaticVm, pid: Option<u32>) -> InstanceInfo {
    InstanceInfo {
        id: vm.id.clone(),
        name: vm.name.as_ref().unwrap_or(&vm.id).clone(),
        hypervisor: vm.hypervisor,
        hypervisor_pid: pid,
        nics: vm.taps.iter().map(Nic::local).collect(),
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

    use super::*;

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
        let listing = StaticList::new(config.vms).list_running_instances_for_metrics().unwrap();
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
        let mut list = StaticList::new(vec![vm]);
        let mut call = || {
            let listing = list.list_running_instances_for_metrics().unwrap();
            let problems: Vec<_> = listing.problems.iter().map(ToString::to_string).collect();
            (listing.instances[0].hypervisor_pid, problems.join("; "))
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
