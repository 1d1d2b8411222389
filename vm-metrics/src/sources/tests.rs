use std::collections::HashSet;

use serde::de::IntoDeserializer;
use toml::de::DeTable;

use super::*;

/// Lists what it is given, or fails.
struct Fake(Option<Vec<InstanceInfo>>);

impl InstanceSource for Fake {
    fn list_running_instances_for_metrics(&mut self) -> Result<Listing, SourceError> {
        let instances = self
            .0
            .clone()
            .ok_or_else(|| SourceError::io("list", "/proc", io::Error::from_raw_os_error(24)))?;
        let problems = vec![SourceError::Process { pid: 5, problem: "odd".into() }];
        Ok(Listing { instances, problems })
    }
}

fn vm(id: &str, pid: u32) -> InstanceInfo {
    InstanceInfo { id: id.into(), hypervisor_pid: Some(pid), ..InstanceInfo::default() }
}

#[test]
fn a_source_that_fails_does_not_hinder_the_others() {
    let mut sources = Sources::new(vec![
        ("first", Box::new(Fake(None))),
        ("second", Box::new(Fake(Some(vec![vm("a", 1), vm("a", 2)])))),
    ]);
    let (set, reports) = sources.list();
    assert_eq!(set.vms, [vm("a", 1), vm("a-2", 2)]);
    let error = reports[0].result.as_ref().unwrap_err().to_string();
    assert_eq!(error, "cannot list /proc: Too many open files (os error 24)");
    assert_eq!((reports[1].name, *reports[1].result.as_ref().unwrap()), ("second", 2));
    assert_eq!(reports[1].problems, ["process 5: odd", "two VMs with the id \"a\": one is \"a-2\" here"]);
}

#[test]
fn the_table_is_in_order() {
    let names: HashSet<_> = SOURCES.iter().map(|source| source.name).collect();
    assert_eq!(names.len(), SOURCES.len(), "two sources of the same name");
    for source in SOURCES {
        assert!(!source.help.is_empty() && !source.help.ends_with('.'), "{}", source.name);
    }
}

#[test]
fn sections_turn_sources_on_and_off() {
    let built = |config: &str| -> Result<Vec<&str>, toml::de::Error> {
        let mut sections = DeTable::parse(config)?.into_inner();
        let mut built = Vec::new();
        for source in SOURCES {
            let section = sections.remove(source.name).map(IntoDeserializer::into_deserializer);
            built.extend((source.build)(&Host::default(), section)?.map(|_| source.name));
        }
        Ok(built)
    };
    assert_eq!(built("").unwrap(), ["proc_scan"]);
    assert_eq!(built("proc_scan.enabled = false").unwrap(), [""; 0]);
    assert_eq!(built("[[static_list.vms]]\nid = \"a\"").unwrap(), ["static_list", "proc_scan"]);
    let config = "[proc_scan]\nenable = false";
    let span = built(config).unwrap_err().span().unwrap();
    assert_eq!(&config[span], "enable");
}

#[test]
fn device_names() {
    for name in ["tap0", "vnet-1.2", "hype-01234567", "a23456789012345", "тап"] {
        assert!(is_device_name(name), "{name}");
    }
    for name in ["", ".", "..", "a/b", "a b", "a\n", "a:1", "a\0", "a234567890123456"] {
        assert!(!is_device_name(name), "{name:?}");
    }
}
