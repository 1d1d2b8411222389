//! Reader `proc_fd`: number of open files, from the size of `/proc/<pid>/fd`.
//!
//! The kernel counts them itself, so a process with a million files costs no more than one with ten, and no right is
//! needed. Nothing of another process can hold up the question.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::host::Host;
use crate::model::{Batch, ComponentHealth, Health, ProcessStats, VmSet};
use crate::net::namespaces::Namespaces;
use crate::readers::cached_file::is_gone;
use crate::readers::{ReadReport, Reader, ReaderDef, ReaderError, StartOutcome};

pub(crate) const READER: ReaderDef = ReaderDef {
    name: "proc_fd",
    configure: |section| {
        section.no_options()?;
        Ok(Box::new(|context| match why_not(&context.host) {
            None => StartOutcome::Running(Box::new(ProcFd { host: context.host.clone() })),
            Some(reason) => StartOutcome::Not(ComponentHealth::new(Health::Unsupported, reason)),
        }))
    },
};

#[derive(Debug)]
struct ProcFd {
    host: Host,
}

/// A copied directory has another size, and before Linux 6.2 the size is 0. This process has some open files.
fn why_not(host: &Host) -> Option<&'static str> {
    if !host.is_this_kernel() {
        return Some("[host] has the files of another kernel, without the number of open files");
    }
    let own = fs::metadata(Host::default().process_itself().join("fd"));
    let counts = own.is_ok_and(|directory| directory.size() > 0);
    (!counts).then_some("the kernel reports the number of open files since Linux 6.2")
}

impl Reader for ProcFd {
    fn read(&mut self, vms: &VmSet, _: &mut Namespaces, batch: &mut Batch) -> ReadReport {
        let mut report = ReadReport::default();
        for pid in vms.pids() {
            let path = self.host.process(pid).join("fd");
            match fs::metadata(&path) {
                Ok(directory) => {
                    let open_files = Some(directory.size());
                    batch.add_process(pid, ProcessStats { open_files, ..ProcessStats::default() });
                    report.items += 1;
                }
                Err(error) if is_gone(&error) => report.error(ReaderError::NoProcess { pid }),
                Err(error) => report.error(ReaderError::io("stat", &path, error)),
            }
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::model::InstanceInfo;

    fn open_files(reader: &mut ProcFd) -> u64 {
        let pid = std::process::id();
        let vm = InstanceInfo { hypervisor_pid: Some(pid), ..InstanceInfo::default() };
        let mut batch = Batch::default();
        reader.read(&VmSet { vms: vec![vm] }, &mut Namespaces::default(), &mut batch);
        batch.processes[&pid].stats.open_files.expect("open files")
    }

    #[test]
    fn more_files_are_more() {
        if let Some(reason) = why_not(&Host::default()) {
            println!("skipped: {reason}");
            return;
        }
        let mut reader = ProcFd { host: Host::default() };
        let before = open_files(&mut reader);
        let null = File::open("/dev/null").expect("/dev/null");
        let files: Vec<_> = (0..200).map(|_| null.try_clone().expect("a duplicate")).collect();
        let more = open_files(&mut reader) - before;
        // Other tests of this process open some, too.
        assert!((100..1000).contains(&more), "{more}");
        drop(files);
    }

    #[test]
    fn plain_files_are_not_counted() {
        let dir = tempfile::tempdir().expect("a directory");
        let reason = why_not(&Host::new(dir.path(), dir.path())).expect("a reason");
        assert!(reason.contains("[host]"), "{reason}");
    }
}
