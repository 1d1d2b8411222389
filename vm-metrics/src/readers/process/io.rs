//! Reader `proc_io`: bytes that the hypervisor process reads and writes, from `/proc/<pid>/io`.

use super::files::ProcessFiles;
use crate::model::{Batch, ProcessStats, VmSet};
use crate::net::namespaces::Namespaces;
use crate::procfs::parse_io;
use crate::readers::{ReadReport, Reader, ReaderDef, StartOutcome};

pub(crate) const READER: ReaderDef = ReaderDef {
    name: "proc_io",
    configure: |section| {
        section.no_options()?;
        Ok(Box::new(|context| {
            let parse = |content: &[u8]| parse_io(content).map(Some);
            let files = ProcessFiles::new(context, "proc_io", "io", parse);
            StartOutcome::Running(Box::new(ProcIo { files }))
        }))
    },
};

#[derive(Debug)]
struct ProcIo {
    files: ProcessFiles<Option<ProcessStats>>,
}

impl Reader for ProcIo {
    fn read(&mut self, vms: &VmSet, _: &mut Namespaces, batch: &mut Batch) -> ReadReport {
        self.files.read_each(vms, batch, |stats| stats)
    }
}
