//! libvirt's own records of the domains that run: `/run/libvirt/qemu/<name>.xml`.
//!
//! Files and no call of libvirt: it cannot hang us, and is not asked to do anything. It writes a record anew when
//! something changes, and takes it away when the domain ends; one that is left over has the pid of no such process.

mod interfaces;
mod status;

use std::path::PathBuf;

use serde::Deserialize;

use self::status::Domain;
use super::process_facts::ProcessFacts;
use super::vmm_pid::VmmPid;
use super::watched_files::{WatchedFiles, names};
use super::written_file::Operators;
use super::{InstanceSource, Listing, SourceContext, SourceDef, SourceError, Tier, bounded, place};
use crate::host::Host;
use crate::model::{Hypervisor, InstanceInfo, Nic};

const DEFAULT_DIR: &str = "/run/libvirt/qemu";

/// A domain with many devices is 50 KiB.
const FILE_LIMIT: u64 = 1 << 20;

pub const SOURCE: SourceDef = SourceDef {
    name: "libvirt",
    help: "libvirt's records of the QEMU domains that run",
    tier: Tier::Orchestrator,
    configure: |section, SourceContext { host, trust, facts, .. }| {
        let config: Config = section.options()?;
        let dir = place(host, config.dir, DEFAULT_DIR);
        Ok(dir.map(|dir| Box::new(Libvirt::new(dir, facts.clone(), Operators::new(trust.clone()))) as _))
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    dir: Option<PathBuf>,
}

#[derive(Debug)]
struct Libvirt {
    facts: ProcessFacts,
    operators: Operators,
    dir: PathBuf,
    files: WatchedFiles<(Domain, VmmPid)>,
}

impl Libvirt {
    fn new(dir: PathBuf, facts: ProcessFacts, operators: Operators) -> Self {
        Self { facts, dir, files: WatchedFiles::new(operators.clone(), FILE_LIMIT), operators }
    }
}

impl InstanceSource for Libvirt {
    fn list_running_instances_for_metrics(&mut self) -> Result<Listing, SourceError> {
        let is_record = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "xml");
        let mut listing = Listing::default();
        let paths = names(&self.dir, &self.operators, &mut listing.problems)?.into_iter().filter(is_record);
        self.files.look(paths, |_, content| Ok((status::parse(content)?, VmmPid::default())));
        listing.problems.extend(self.files.problems());
        for (_, (domain, seen)) in self.files.values() {
            if let Some(found) = seen.check(&self.facts, domain.pid, &domain.uuid) {
                listing.instances.push(domain.instance(self.facts.host(), found.hypervisor));
            }
        }
        Ok(listing)
    }
}

impl Domain {
    fn instance(&self, host: &Host, hypervisor: Hypervisor) -> InstanceInfo {
        let (uncounted, has_more_nics) = bounded::uncounted(host, self.uncounted.clone());
        InstanceInfo {
            id: self.uuid.clone(),
            name: self.name.clone(),
            hypervisor,
            hypervisor_pid: Some(self.pid),
            nics: self.taps.iter().map(Nic::local).collect(),
            uncounted,
            has_more_nics,
            allocated_vcpus: self.vcpus,
            allocated_memory_bytes: self.memory_bytes,
            actual_memory_bytes: self.actual_memory_bytes,
            state: self.state,
            project: self.project.clone(),
            ..InstanceInfo::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::proc_scan::fixture::{Fake, Fixture};
    use super::*;
    use crate::model::Trust;

    const ARGS: &str = "qemu-system-x86_64 -name guest=web -uuid 01234567-89ab-4cde-8f01-23456789abcd";

    #[test]
    fn a_domain_is_listed_while_its_process_is_there() {
        let host = Fixture::with(&[Fake { pid: 5854, args: ARGS, ..Fake::default() }]);
        let dir = host.path("libvirt");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("web 1.xml"), status::tests::REAL).unwrap();
        fs::write(dir.join("web 1.pid"), "5854").unwrap();
        fs::write(dir.join("bad.xml"), "<domstatus").unwrap();
        let mut source =
            Libvirt::new(dir.clone(), ProcessFacts::new(host.host(), Trust::default()), Operators::default());
        let mut listed = || {
            let listing = source.list_running_instances_for_metrics().unwrap();
            (listing.instances, listing.problems.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let (vms, problems) = listed();
        assert_eq!(vms.len(), 1);
        assert_eq!((vms[0].hypervisor, vms[0].hypervisor_pid), (Hypervisor::Qemu, Some(5854)));
        assert_eq!(vms[0].nics, [Nic::local("vnet0")]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with(&format!("{}: ", dir.join("bad.xml").display())), "{problems:?}");

        // The record was left over, and the pid is somebody else's.
        host.put(&Fake { pid: 5854, start: 6000, ..Fake::default() });
        assert_eq!(listed().0, []);
    }
}
