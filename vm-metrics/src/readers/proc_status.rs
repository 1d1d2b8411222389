//! What is behind the memory of the hypervisor process, from `/proc/<pid>/status`.

use super::kept::ProcessFiles;
use super::{ReadReport, Reader, ReaderDef, Started};
use crate::model::{Batch, VmSet};
use crate::procfs::parse_status;

pub(super) const DEF: ReaderDef = ReaderDef {
    name: "proc_status",
    help: "anonymous, file, shared, huge and swapped memory of each hypervisor process, from /proc/<pid>/status",
    configure: |section| {
        section.no_options()?;
        Ok(Box::new(|setting| {
            Started::Running(Box::new(ProcStatus {
                files: ProcessFiles::new(setting.host.clone(), "status"),
            }))
        }))
    },
};

#[derive(Debug)]
struct ProcStatus {
    files: ProcessFiles,
}

impl Reader for ProcStatus {
    fn read(&mut self, vms: &VmSet, batch: &mut Batch) -> ReadReport {
        self.files.read_each(vms, parse_status, |pid, memory| {
            batch.processes.entry(pid).or_default().memory = memory;
        })
    }
}
