//! What the hypervisor process has storage read and write, from `/proc/<pid>/io`.

use super::process_files::ProcessFiles;
use super::{ReadReport, Reader, ReaderDef, Started};
use crate::model::{Batch, ProcessStats, VmSet};
use crate::procfs::parse_io;

pub(super) const DEF: ReaderDef = ReaderDef {
    name: "proc_io",
    help: "bytes that each hypervisor process had storage read and write, from /proc/<pid>/io",
    configure: |section| {
        section.no_options()?;
        Ok(Box::new(|setting| {
            let parse = |content: &[u8]| parse_io(content).map(Some);
            let files = ProcessFiles::new(setting, "proc_io", "io", parse);
            Started::Running(Box::new(ProcIo { files }))
        }))
    },
};

#[derive(Debug)]
struct ProcIo {
    files: ProcessFiles<Option<ProcessStats>>,
}

impl Reader for ProcIo {
    fn read(&mut self, vms: &VmSet, batch: &mut Batch) -> ReadReport {
        self.files.read_each(vms, |pid, stats| batch.add_process(pid, stats))
    }
}
