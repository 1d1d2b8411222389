//! Source `libvirt`: records of running domains, `/run/libvirt/qemu/<name>.xml`.
//!
//! The domains are of QEMU or Cloud Hypervisor. No call of libvirt is needed, so it cannot block a tick. libvirt rewrites a
//! record at each change, and removes it when the domain ends. The pid of a stale record is no such process.

mod interfaces;
mod record_dirs;
mod status;
mod xml;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use self::record_dirs::RecordDirs;
use self::status::Domain;
use super::{DirConfig, Listing, Precedence, Source, SourceContext, SourceDef, SourceError};
use crate::host::Host;
use crate::model::{Hypervisor, InstanceInfo, Nic};
use crate::sources::declared::hypervisor_pid::{Candidate, HypervisorPid};
use crate::sources::declared::pid_guard::started_after;
use crate::sources::files::watched::WatchedFiles;
use crate::sources::values::{bounded, uuid};

/// A domain with many devices is 50 KiB.
const FILE_LIMIT: u64 = 1 << 20;

pub const SOURCE: SourceDef = SourceDef {
    name: "libvirt",
    help: "libvirt's records of the domains that run, of QEMU and of Cloud Hypervisor",
    precedence: Precedence::Orchestrator,
    config: r#"# libvirt's records of the domains that run, of QEMU, of Cloud Hypervisor and of trusted users' sessions; libvirt itself
# is not asked. A directory that is set is the only one.
[sources.libvirt]
enabled = "auto"
# dir = "/run/libvirt/qemu"
"#,
    configure: |section, context| {
        let config: DirConfig = section.options()?;
        let record_dirs = match config.dir {
            Some(dir) => RecordDirs::One(dir),
            None if context.host.is_this_kernel() => RecordDirs::Usual,
            None => return Ok(None),
        };
        Ok(Some(Box::new(Libvirt::new(record_dirs, context))))
    },
};

#[derive(Debug)]
struct Libvirt {
    context: SourceContext,
    record_dirs: RecordDirs,
    files: WatchedFiles<DomainRecord>,
}

/// A file that libvirt has written of a domain.
#[derive(Debug)]
struct DomainRecord {
    domain: Domain,
    written: Option<SystemTime>,
    process: HypervisorPid,
}

impl Libvirt {
    fn new(record_dirs: RecordDirs, context: &SourceContext) -> Self {
        let files = WatchedFiles::new(context.operators.clone(), FILE_LIMIT);
        Self { context: context.clone(), record_dirs, files }
    }

    /// The files in all places. It is an error where there is no place, or none can be listed.
    fn paths(&self, problems: &mut Vec<SourceError>) -> Result<Vec<PathBuf>, SourceError> {
        let is_record = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "xml");
        let (mut paths, mut errors) = (Vec::new(), Vec::new());
        let directories = self.record_dirs.directories(&self.context.operators);
        for directory in &directories {
            match self.files.names_where(directory, |_| true, problems) {
                Ok(names) => paths.extend(names.into_iter().filter(is_record)),
                Err(error) => errors.push(error),
            }
        }
        let nothing_is_listed = errors.len() == directories.len();
        // An unreadable directory is a better error than an absent one.
        let is_absent = |error: &SourceError| matches!(error, SourceError::Absent { .. });
        errors.sort_by_key(is_absent);
        let mut errors = errors.into_iter();
        match errors.next() {
            Some(error) if nothing_is_listed => Err(error),
            first => {
                problems.extend(first.into_iter().chain(errors).filter(|error| !is_absent(error)));
                Ok(paths)
            }
        }
    }
}

impl Source for Libvirt {
    fn list(&mut self) -> Result<Listing, SourceError> {
        let mut listing = Listing::default();
        let paths = self.paths(&mut listing.problems)?;
        let SourceContext { host, processes, .. } = &self.context;
        for (path, record) in self.files.look(paths, &mut listing.problems, DomainRecord::parse) {
            let DomainRecord { domain, written, process } = record;
            let is_it = |candidate: &Candidate| domain.is_run_by(candidate, path, *written);
            if let Some(found) = process.check_by(processes, domain.pid, is_it) {
                listing.instances.push(domain.instance(host, found.hypervisor));
            }
        }
        Ok(listing)
    }
}

impl DomainRecord {
    fn parse(path: &Path, content: &[u8]) -> Result<Self, String> {
        let written = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        Ok(Self { domain: status::parse(content)?, written, process: HypervisorPid::default() })
    }
}

impl Domain {
    /// QEMU has the UUID in its arguments, Cloud Hypervisor a path with the name. With libvirt 7 to 10 it has only a
    /// descriptor: it must be older than the record.
    fn is_run_by(&self, candidate: &Candidate, record: &Path, written: Option<SystemTime>) -> bool {
        let Candidate { hypervisor, argv, start_ticks } = candidate;
        if *hypervisor != Hypervisor::CloudHypervisor {
            let uuid = uuid::canonical(&self.uuid);
            return argv.iter().any(|argument| argument.to_ascii_lowercase().contains(&uuid));
        }
        let name = record.file_stem().unwrap_or_default().to_string_lossy();
        let marks = ["-socket", "-event-monitor-fifo"].map(|ending| format!("/{name}{ending}"));
        let is_marked = argv.iter().any(|argument| marks.iter().any(|mark| argument.ends_with(mark)));
        let says_nothing = argv.iter().any(|argument| argument.starts_with("fd="))
            && !argv.iter().any(|argument| argument == "--event-monitor");
        let was_there = || written.is_some_and(|written| started_after(*start_ticks, written).is_none());
        is_marked || says_nothing && was_there()
    }

    fn instance(&self, host: &Host, hypervisor: Hypervisor) -> InstanceInfo {
        let (unmonitored, has_more_nics) = bounded::unmonitored(host, self.unmonitored.clone());
        InstanceInfo {
            id: self.uuid.clone(),
            name: self.name.clone(),
            hypervisor,
            hypervisor_pid: Some(self.pid),
            nics: self.taps.iter().map(Nic::local).collect(),
            unmonitored,
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
mod tests;
