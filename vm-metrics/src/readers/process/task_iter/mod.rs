//! Reader `task_iter`: the processes of all VMs at once, by an eBPF program.
//!
//! The kernel calls it for each thread of the host. Beside few other threads a read costs a fraction of the files in `/proc`,
//! and gives the same numbers. Beside many it costs more, so this reader is on request and rests there. The readers of those
//! files read the other processes: all of them without this reader, and one whose threads changed during the read.

#[cfg(feature = "ebpf")]
mod program;
#[cfg(feature = "ebpf")]
mod reader;

#[cfg(not(feature = "ebpf"))]
use crate::model::{ComponentHealth, Health};
use crate::readers::ReaderDef;
#[cfg(not(feature = "ebpf"))]
use crate::readers::StartOutcome;

pub(crate) const READER: ReaderDef = ReaderDef {
    name: "task_iter",
    configure: |section| {
        section.no_options()?;
        #[cfg(feature = "ebpf")]
        return Ok(Box::new(reader::start));
        #[cfg(not(feature = "ebpf"))]
        Ok(Box::new(|_| {
            let reason = "this binary was built without eBPF (--no-default-features)";
            StartOutcome::Not(ComponentHealth::new(Health::Unsupported, reason))
        }))
    },
};
