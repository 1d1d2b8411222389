//! Reader `proc_io`: bytes that the hypervisor process reads and writes, from `/proc/<pid>/io`.

use super::files::ProcessFiles;
use crate::procfs::parse_io;
use crate::readers::{ReaderDef, StartOutcome};

pub(crate) const READER: ReaderDef = ReaderDef {
    name: "proc_io",
    configure: |section| {
        section.no_options()?;
        Ok(Box::new(|context| {
            let parse = |content: &[u8]| parse_io(content).map(Some);
            StartOutcome::Running(Box::new(ProcessFiles::new(context, "proc_io", "io", parse)))
        }))
    },
};
