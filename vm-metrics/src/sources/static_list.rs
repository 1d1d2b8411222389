//! Source `static_list`: VMs in the configuration.
//!
//! They cover hypervisors that `proc_scan` does not know, and give VMs another id or name.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::{Listing, Precedence, Source, SourceContext, SourceDef, SourceError};
use crate::config::ConfigError;
pub use crate::sources::declared::DeclaredVm;
use crate::sources::declared::pid_guard::PidGuard;

pub const SOURCE: SourceDef = SourceDef {
    name: "static_list",
    help: "VMs that the configuration gives",
    precedence: Precedence::Declared,
    config: r#"# VMs that this file declares. They win over VMs that other sources find.
[sources.static_list]
enabled = "auto"
# [[sources.static_list.vms]]
# id = "01234567"              # required
# name = "web"                 # default: the id
# pid_file = "/run/web.pid"    # or: pid = 4242
# taps = ["hype-01234567"]
# vcpus = 2
# memory_bytes = 2147483648
# project = "acme"            # becomes a label of vm_info
"#,
    configure: |section, context| {
        let config: StaticListConfig = section.options()?;
        let errors: Vec<_> = problems(&config.vms)
            .into_iter()
            .map(|(place, problem)| section.refuse(place, &format!("vms: {problem}")))
            .collect();
        if !errors.is_empty() {
            return Err(ConfigError::all(errors));
        }
        let vms: Vec<_> = config.vms.into_iter().map(Spanned::into_inner).collect();
        Ok((!vms.is_empty()).then(|| Box::new(StaticList::new(vms, context)) as _))
    },
};

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct StaticListConfig {
    vms: Vec<Spanned<DeclaredVm>>,
}

#[derive(Debug)]
pub struct StaticList {
    context: SourceContext,
    vms: Vec<(DeclaredVm, PidGuard)>,
}

impl StaticList {
    pub fn new(vms: Vec<DeclaredVm>, context: &SourceContext) -> Self {
        Self { context: context.clone(), vms: vms.into_iter().map(|vm| (vm, PidGuard::default())).collect() }
    }
}

/// The problems of each VM, or between two, with their position.
fn problems(vms: &[Spanned<DeclaredVm>]) -> Vec<(Range<usize>, String)> {
    let mut problems = Vec::new();
    let mut ids = HashSet::new();
    let mut holders = HashMap::new();
    for typed in vms {
        let vm = typed.get_ref();
        let mut add = |problem| problems.push((typed.span(), problem));
        if vm.id.is_empty() {
            add("the key `id` is missing: id = \"01234567\"".to_owned());
        } else if let Err(problem) = vm.check() {
            add(problem);
        }
        if vm.vcpus == Some(0) {
            add("no VM has 0 vcpus: leave the key out where the number is not known".to_owned());
        }
        if !vm.id.is_empty() && !ids.insert(&vm.id) {
            add(format!("the id {:?} is there twice", vm.id));
        }
        for tap in &vm.taps {
            if let Some(id) = holders.insert(tap, &vm.id).filter(|id| **id != vm.id) {
                add(format!("the TAP {tap:?} is given to {id:?} and to {:?}", vm.id));
            }
        }
    }
    problems
}

impl Source for StaticList {
    fn list(&mut self) -> Result<Listing, SourceError> {
        let mut listing = Listing::default();
        for (vm, guard) in &mut self.vms {
            vm.list(&self.context, None, guard, &mut listing);
        }
        Ok(listing)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::proc_scan::fixture::{Fake, Fixture};
    use super::*;
    use crate::app::App;
    use crate::config::Document;
    use crate::model::{Hypervisor, InstanceInfo, Nic};

    #[test]
    fn from_toml() {
        let config: StaticListConfig = toml::from_str(
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
        let host = Fixture::with(&[Fake { pid: 42, ..Fake::QEMU }]);
        let vms = config.vms.into_iter().map(Spanned::into_inner).collect();
        let listing = StaticList::new(vms, &host.context()).list().unwrap();
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
    fn an_unknown_key_is_an_error() {
        let error = toml::from_str::<StaticListConfig>("[[vms]]\nid = \"a\"\ntap = \"tap0\"")
            .unwrap_err()
            .to_string();
        assert!(error.contains("unknown field `tap`") && error.contains("line 3"), "{error}");
    }

    #[test]
    fn a_tap_that_cannot_be_is_an_error() {
        let config = "[[vms]]\nid = \"a\"\ntaps = [\"tap0\", \"../lo\"]";
        let error = toml::from_str::<StaticListConfig>(config).unwrap_err().to_string();
        assert!(error.contains("\"../lo\" cannot be the name") && error.contains("line 3"), "{error}");
    }

    #[test]
    fn each_mistake_is_told_at_its_vm() {
        let text = "[[sources.static_list.vms]]\nid = \"a\"\npid = \"42\"\nvcpus = 0\nmemory_bytes = \"2G\"\n\
                    [[sources.static_list.vms]]\nname = \"b\"\n[[sources.static_list.vms]]\nid = \"a\"\n";
        let document = Document::new(Path::new("test.toml"), text);
        let error = App::load(document, |_| ()).unwrap_err().to_string();
        for (line, says) in [
            (1, "no VM has 0 vcpus"),
            (3, "must be a whole number"),
            (5, "must be a whole number"),
            (6, "the key `id` is missing: id = \"01234567\""),
            (8, "the id \"a\" is there twice"),
        ] {
            let place = format!("test.toml:{line}: ");
            let is_told = error.lines().any(|told| told.starts_with(&place) && told.contains(says));
            assert!(is_told, "{line} {says}: {error}");
        }
        assert_eq!(error.lines().count(), 5, "{error}");
        assert!(!error.contains("for example [["), "{error}");
    }
}
