//! What the hypervisor process has storage read and write, from `/proc/<pid>/io`.

use super::kept::ProcessFiles;
use super::{ReadReport, Reader, ReaderDef, Started};
use crate::model::{Batch, VmSet};
use crate::procfs::parse_io;

pub(super) const DEF: ReaderDef = ReaderDef {
    name: "proc_io",
    help: "bytes that each hypervisor process had storage read and write, from /proc/<pid>/io",
    configure: |section| {
        section.no_options()?;
        Ok(Box::new(|setting| {
            Started::Running(Box::new(ProcIo { files: ProcessFiles::new(setting.host.clone(), "io") }))
        }))
    },
};

#[derive(Debug)]
struct ProcIo {
    files: ProcessFiles,
}

impl Reader for ProcIo {
    fn read(&mut self, vms: &VmSet, batch: &mut Batch) -> ReadReport {
        let parse = |content: &[u8]| parse_io(content).map(Some);
        self.files.read_each(vms, parse, |pid, disk| {
            batch.processes.entry(pid).or_default().disk = Some(disk);
        })
    }
}
