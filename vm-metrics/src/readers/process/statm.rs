//! Reader `proc_statm`: memory of the hypervisor process, from `/proc/<pid>/statm`.

use rustix::param::page_size;

use super::files::ProcessFiles;
use crate::host::Host;
use crate::model::ProcessStats;
use crate::procfs::{ParseError, Statm, parse_statm};
use crate::readers::{ReaderDef, ReaderError, StartOutcome};

pub(crate) const READER: ReaderDef = ReaderDef {
    name: "proc_statm",
    configure: |section| {
        section.no_options()?;
        Ok(Box::new(|context| {
            StartOutcome::Running(Box::new(ProcessFiles::new(context, "proc_statm", "statm", parse_memory)))
        }))
    },
};

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcStatm {
    /// Resident set size: physical memory in use. Memory from hugetlbfs is not in it.
    pub rss_bytes: u64,
    /// Virtual memory size: address space in use.
    pub vms_bytes: u64,
}

/// Memory of a process.
///
/// Source: fields 2 and 1 of `/proc/<pid>/statm`, in pages of `sysconf(_SC_PAGESIZE)`.
///
/// ```
/// let memory = vm_metrics::read_proc_statm(std::process::id()).unwrap();
/// assert!(memory.vms_bytes >= memory.rss_bytes);
/// ```
///
/// # Errors
/// When there is no such process, its file may not be read, or is not in the kernel's format.
pub fn read_proc_statm(pid: u32) -> Result<ProcStatm, ReaderError> {
    let path = Host::default().process(pid).join("statm");
    let content = std::fs::read(&path).map_err(|error| ReaderError::io("read", &path, error))?;
    let statm = parse_statm(&content).map_err(|source| ReaderError::Parse { path, source })?;
    Ok(in_bytes(&statm))
}

/// All zero is a process that has ended and is not reaped: not measured, not 0.
fn parse_memory(content: &[u8]) -> Result<Option<ProcessStats>, ParseError> {
    let ProcStatm { rss_bytes, vms_bytes } = in_bytes(&parse_statm(content)?);
    let (memory_rss_bytes, memory_vms_bytes) = (Some(rss_bytes), Some(vms_bytes));
    let stats = ProcessStats { memory_rss_bytes, memory_vms_bytes, ..ProcessStats::default() };
    Ok((vms_bytes > 0).then_some(stats))
}

fn in_bytes(statm: &Statm) -> ProcStatm {
    let page_size = page_size() as u64;
    ProcStatm {
        rss_bytes: statm.resident_pages.saturating_mul(page_size),
        vms_bytes: statm.size_pages.saturating_mul(page_size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rss_grows_with_touched_memory() {
        let pid = std::process::id();
        let before = read_proc_statm(pid).expect("own statm").rss_bytes;
        let touched = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = read_proc_statm(pid).expect("own statm").rss_bytes;
        assert!(after >= before + (32 << 20), "{before} -> {after} with {} bytes", touched.len());
    }
}
