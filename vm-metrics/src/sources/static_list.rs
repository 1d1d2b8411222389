//! VMs that the configuration gives: for hypervisors that [`proc_scan`](super::proc_scan) does not know, or
//! to give a VM another id or name.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

pub use super::described::DescribedVm;
use super::process_facts::ProcessFacts;
use super::written_file::Operators;
use super::written_pid::WrittenPid;
use super::{InstanceSource, Listing, SourceContext, SourceDef, SourceError, Tier};

pub const SOURCE: SourceDef = SourceDef {
    name: "static_list",
    help: "VMs that the configuration gives",
    tier: Tier::Written,
    configure: |section, SourceContext { trust, facts, .. }| {
        let config: Config = section.options()?;
        check(&config.vms).map_err(|problem| section.refusal("vms", &problem))?;
        let list = || StaticList::new(config.vms.clone(), facts.clone(), Operators::new(trust.clone()));
        Ok((!config.vms.is_empty()).then(|| Box::new(list()) as _))
    },
};

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    vms: Vec<DescribedVm>,
}

#[derive(Debug)]
pub struct StaticList {
    facts: ProcessFacts,
    operators: Operators,
    vms: Vec<(DescribedVm, WrittenPid)>,
}

impl StaticList {
    pub fn new(vms: Vec<DescribedVm>, facts: ProcessFacts, operators: Operators) -> Self {
        Self { facts, operators, vms: vms.into_iter().map(|vm| (vm, WrittenPid::default())).collect() }
    }
}

/// What is wrong with one of them, or between two.
fn check(vms: &[DescribedVm]) -> Result<(), String> {
    let mut ids = HashSet::new();
    let mut holders = HashMap::new();
    for vm in vms {
        vm.check()?;
        if !ids.insert(&vm.id) {
            return Err(format!("the id {:?} is there twice", vm.id));
        }
        for tap in &vm.taps {
            if let Some(id) = holders.insert(tap, &vm.id) {
                return Err(format!("the TAP {tap:?} is given to {id:?} and to {:?}", vm.id));
            }
        }
    }
    Ok(())
}

impl InstanceSource for StaticList {
    fn list_running_instances_for_metrics(&mut self) -> Result<Listing, SourceError> {
        let mut listing = Listing::default();
        for (vm, seen) in &mut self.vms {
            vm.list(&self.facts, &self.operators, None, seen, &mut listing);
        }
        Ok(listing)
    }
}

#[cfg(test)]
mod tests {
    use super::super::proc_scan::fixture::{Fake, Fixture};
    use super::*;
    use crate::model::Trust;
    use crate::model::{Hypervisor, InstanceInfo, Nic};

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
            project = "acme"
            "#,
        )
        .unwrap();
        let host = Fixture::with(&[Fake { pid: 42, ..Fake::default() }]);
        let listing = StaticList::new(
            config.vms,
            ProcessFacts::new(host.host(), Trust::default()),
            Operators::default(),
        )
        .list_running_instances_for_metrics()
        .unwrap();
        let web = InstanceInfo { id: "web".into(), name: "web".into(), ..InstanceInfo::default() };
        let db = InstanceInfo {
            id: "db".into(),
            name: "The database".into(),
            hypervisor: Hypervisor::CloudHypervisor,
            hypervisor_pid: Some(42),
            nics: vec![Nic::local("tap0"), Nic::local("tap1")],
            allocated_vcpus: Some(2),
            allocated_memory_bytes: Some(1 << 30),
            project: Some("acme".into()),
            ..InstanceInfo::default()
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
}
