//! Brings the programs into the kernel, and says in one sentence why it will not have them.

use std::error::Error;
use std::io;

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use aya::programs::{ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;
use log::Log;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use thiserror::Error;
use vm_metrics_common::{TableEntry, names};

use super::counters::CounterMap;
use crate::model::{Health, PartHealth};
use crate::readers::ReaderError;

/// Built by `build.rs` from `vm-metrics-ebpf`; aligned, because the loader reads it in place.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vm-metrics.bpf.o"));

/// The programs in the kernel, with their maps.
pub(super) struct Loaded {
    ebpf: Ebpf,
    pub(super) counters: CounterMap,
    pub(super) table: Array<MapData, TableEntry>,
    pub(super) collisions: HashMap<MapData, u32, u32>,
    logger: EbpfLogger<&'static dyn Log>,
}

impl Loaded {
    pub(super) fn new(max_nics: u32) -> Result<Self, LoadError> {
        // Before 5.11 maps count against this limit; later kernels do not look at it.
        let unlimited = Rlimit { current: None, maximum: None };
        if let Err(errno) = setrlimit(Resource::Memlock, unlimited) {
            tracing::debug!("RLIMIT_MEMLOCK stays as it is: {errno}");
        }
        let cpus = aya::util::nr_cpus().map_err(|(path, source)| LoadError::Cpus { path, source })?;
        let cpus = u32::try_from(cpus).map_err(|_| LoadError::Missing("a sensible number of CPUs"))?;
        let entries = max_nics.checked_mul(cpus).ok_or(LoadError::TooManyNics { max_nics, cpus })?;
        let mut ebpf = EbpfLoader::new()
            .override_global(names::GLOBAL_CPUS, &cpus, true)
            .map_max_entries(names::MAP_COUNTERS, entries)
            .load(OBJECT)?;
        let logger = EbpfLogger::init(&mut ebpf).map_err(|_| LoadError::Missing("the map AYA_LOGS"))?;
        for name in [names::PROGRAM_INGRESS, names::PROGRAM_EGRESS] {
            classifier(&mut ebpf, name)?.load()?;
        }
        let counters = CounterMap::new(take(&mut ebpf, names::MAP_COUNTERS)?, max_nics, cpus)?;
        let table = Array::try_from(take(&mut ebpf, names::MAP_TABLE)?)?;
        let collisions = HashMap::try_from(take(&mut ebpf, names::MAP_COLLISIONS)?)?;
        Ok(Self { ebpf, counters, table, collisions, logger })
    }

    pub(super) fn program(&mut self, name: &'static str) -> Result<&mut SchedClassifier, LoadError> {
        classifier(&mut self.ebpf, name)
    }

    /// Passes on what the programs had to say; from memory, without a system call.
    pub(super) fn flush_log(&mut self) {
        self.logger.flush();
    }
}

fn classifier<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut SchedClassifier, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
    Ok(program.try_into()?)
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or(LoadError::Missing(name))
}

#[derive(Debug, Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Ebpf(#[from] EbpfError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Map(#[from] MapError),
    #[error("cannot map the counters into memory: {0}")]
    Mmap(#[source] io::Error),
    #[error("cannot read {path}: {source}")]
    Cpus { path: &'static str, source: io::Error },
    #[error("max_nics = {max_nics} on {cpus} possible CPUs is more than a map can have")]
    TooManyNics { max_nics: u32, cpus: u32 },
    #[error(transparent)]
    Links(ReaderError),
    #[error("all slots are in use: raise readers.tap_ebpf.max_nics")]
    NoSlot,
    #[error("the device changed while it was attached")]
    DeviceChanged,
    #[error("the eBPF object lacks {0}")]
    Missing(&'static str),
}

impl LoadError {
    /// What is off, why, and what would turn it on.
    pub(super) fn health(&self) -> PartHealth {
        let errno = errno_of(self);
        let (state, advice) = match errno.map(Errno::from_raw_os_error) {
            Some(Errno::PERM) => (Health::Unsupported, "; the daemon needs CAP_BPF and CAP_NET_ADMIN"),
            Some(Errno::NOSYS) => (Health::Unsupported, "; this kernel is built without bpf(2)"),
            _ => (Health::Failed, ""),
        };
        PartHealth::new(state, format!("cannot load the programs: {}{advice}", self.in_one_line()))
            .with_errno(errno)
    }

    /// The causes, outermost first. Of a verifier log, the line that says why; all of it goes to the debug log.
    pub(super) fn in_one_line(&self) -> String {
        if let Self::Program(ProgramError::LoadError { io_error, verifier_log }) = self {
            tracing::debug!("verifier log:\n{verifier_log}");
            let log = verifier_log.to_string();
            return format!("{io_error}; the verifier says: {}", verdict(&log).unwrap_or("nothing"));
        }
        let mut parts: Vec<String> = Vec::new();
        let mut cause: Option<&dyn Error> = Some(self);
        while let Some(error) = cause {
            let text = error.to_string();
            if parts.last().is_none_or(|last| !last.ends_with(&text)) {
                parts.push(text);
            }
            cause = error.source();
        }
        parts.join(": ")
    }
}

/// The last line that is not a statistic.
fn verdict(verifier_log: &str) -> Option<&str> {
    const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];
    let is_statistic = |line: &&str| STATISTICS.iter().any(|start| line.starts_with(start));
    verifier_log.lines().rev().map(str::trim).find(|line| !line.is_empty() && !is_statistic(line))
}

/// The error number at the end of the chain of causes.
pub(super) fn errno_of(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(errno) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(errno);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_the_last_line_that_is_no_statistic() {
        let log = "0: R1=ctx()\n7: (71) r3 = *(u8 *)(r1 +0)\ninvalid access to packet\nstack depth 56+0\nprocessed 142 insns\n\n";
        assert_eq!(verdict(log), Some("invalid access to packet"));
        assert_eq!(verdict("processed 1 insns"), None);
    }

    #[test]
    fn a_missing_right_is_not_a_failure_and_names_the_right() {
        let denied = LoadError::Mmap(io::Error::from_raw_os_error(Errno::PERM.raw_os_error()));
        let health = denied.health();
        assert_eq!((health.state, health.errno), (Health::Unsupported, Some(1)));
        assert!(health.reason.contains("CAP_BPF"), "{}", health.reason);
    }

    #[test]
    fn other_faults_are_failures() {
        let health = LoadError::Missing("the map COUNTERS").health();
        assert_eq!((health.state, health.errno), (Health::Failed, None));
        assert_eq!(health.reason, "cannot load the programs: the eBPF object lacks the map COUNTERS");
    }
}
