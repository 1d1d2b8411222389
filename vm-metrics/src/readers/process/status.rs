//! Reader `proc_status`: kinds of memory of the hypervisor process, from `/proc/<pid>/status`.

use super::files::ProcessFiles;
use crate::model::{Batch, ProcessStats, VmSet};
use crate::net::namespaces::Namespaces;
use crate::procfs::parse_status;
use crate::readers::{ReadReport, Reader, ReaderDef, StartOutcome};

pub(crate) const READER: ReaderDef = ReaderDef {
    name: "proc_status",
    configure: |section| {
        section.no_options()?;
        Ok(Box::new(|context| {
            let files = ProcessFiles::new(context, "proc_status", "status", parse_status);
            StartOutcome::Running(Box::new(ProcStatus { files }))
        }))
    },
};

#[derive(Debug)]
struct ProcStatus {
    files: ProcessFiles<Option<ProcessStats>>,
}

impl Reader for ProcStatus {
    fn read(&mut self, vms: &VmSet, _: &mut Namespaces, batch: &mut Batch) -> ReadReport {
        self.files.read_each(vms, batch, |stats| stats)
    }
}
