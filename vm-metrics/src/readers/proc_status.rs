//! What is behind the memory of the hypervisor process, from `/proc/<pid>/status`.

use super::process_files::ProcessFiles;
use super::{ReadReport, Reader, ReaderDef, Started};
use crate::model::{Batch, ProcessStats, VmSet};
use crate::procfs::parse_status;

pub(super) const DEF: ReaderDef = ReaderDef {
    name: "proc_status",
    help: "anonymous, file, shared, huge and swapped memory of each hypervisor process, from /proc/<pid>/status",
    configure: |section| {
        section.no_options()?;
        Ok(Box::new(|setting| {
            let files = ProcessFiles::new(setting, "proc_status", "status", parse_status);
            Started::Running(Box::new(ProcStatus { files }))
        }))
    },
};

#[derive(Debug)]
struct ProcStatus {
    files: ProcessFiles<Option<ProcessStats>>,
}

impl Reader for ProcStatus {
    fn read(&mut self, vms: &VmSet, batch: &mut Batch) -> ReadReport {
        self.files.read_each(vms, |pid, stats| batch.add_process(pid, stats))
    }
}
