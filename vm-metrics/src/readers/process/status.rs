//! Reader `proc_status`: kinds of memory of the hypervisor process, from `/proc/<pid>/status`.

use super::files::ProcessFiles;
use crate::procfs::parse_status;
use crate::readers::{ReaderDef, StartOutcome};

pub(crate) const READER: ReaderDef = ReaderDef {
    name: "proc_status",
    configure: |section| {
        section.no_options()?;
        Ok(Box::new(|context| {
            StartOutcome::Running(Box::new(ProcessFiles::new(context, "proc_status", "status", parse_status)))
        }))
    },
};
