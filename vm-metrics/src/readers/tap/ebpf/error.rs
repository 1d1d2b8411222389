//! Why the kernel will not have the programs, in one sentence.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::pin::PinError as PinLinkError;
use aya::programs::ProgramError;
use aya::programs::links::LinkError;
use aya::programs::tc::TcError;
use rustix::io::Errno;
use thiserror::Error;

use super::kernel::BtfError;
use super::programs::pins::PinError;
use crate::model::{ComponentHealth, Health, in_one_line};
use crate::net::NetError;
use crate::readers::ReaderError;

#[derive(Debug, Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Ebpf(#[from] EbpfError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Map(#[from] MapError),
    #[error("cannot map the counters into memory: {0}")]
    Mmap(#[source] io::Error),
    #[error("cannot read {}: {source}", path.display())]
    Cpus { path: PathBuf, source: io::Error },
    #[error("max_nics = {max_nics} is too many for {cpus} CPUs: choose a smaller readers.tap_ebpf.max_nics")]
    TooManyNics { max_nics: u32, cpus: u32 },
    #[error("cannot read {}: {source}", path.display())]
    ReadBtf { path: PathBuf, source: io::Error },
    #[error(transparent)]
    KernelTypes(#[from] BtfError),
    #[error(transparent)]
    Btf(#[from] aya::BtfError),
    #[error(transparent)]
    Links(NetError),
    #[error("cannot add a clsact qdisc: {0}")]
    Qdisc(#[source] TcError),
    #[error(
        "somebody else has put a qdisc of the kind {kind} in the place of clsact: it stays, so the programs cannot be attached"
    )]
    OtherQdisc { kind: String },
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    PinLink(#[from] PinLinkError),
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error(
        "the counters in {} have another layout than those of this version: `vm-metrics detach` removes them",
        path.display()
    )]
    OtherShape { path: PathBuf },
    #[error("cannot ask which programs are on a device: {0}")]
    Query(#[source] io::Error),
    #[error(
        "the kernel does not say what an earlier daemon has left on it, so that stays as it is (`vm-metrics detach` removes it)"
    )]
    Unverified(#[source] Box<LoadError>),
    #[error("as many TAPs as readers.tap_ebpf.max_nics allows are counted already: raise it")]
    NoSlot,
    #[error("cannot enter the network namespace: {0}")]
    Enter(#[source] io::Error),
    #[error(
        "another device took its name while the programs were attached: they are attached again at the next try"
    )]
    DeviceChanged,
    #[error("the eBPF programs in this binary lack the {kind} {name}: build the binary anew")]
    Missing { kind: &'static str, name: &'static str },
    #[error("cannot read the kernel's task iterator: {0}")]
    Iterate(#[source] io::Error),
    #[error(
        "the task iterator and /proc do not tell the same of this process, as in a time namespace or another pid namespace"
    )]
    OtherTasks,
    #[error("the ids of CPUs have gaps: the program would read memory of none")]
    CpuGaps,
    #[error("the counters are no array: build the binary anew")]
    NoArray,
    #[error("the number {netns} of a network namespace has more than the 32 bits that the kernel gives it")]
    WideNamespace { netns: u64 },
}

impl LoadError {
    /// What is off, why, and what would turn it on.
    pub(crate) fn health(&self) -> ComponentHealth {
        const RIGHTS: &str = "; the daemon needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";
        let errno = errno_of(self);
        let (state, advice) = match errno.map(Errno::from_raw_os_error) {
            _ if self.is_of_the_kernel() => (Health::Unsupported, ""),
            Some(Errno::PERM) => (Health::Unsupported, RIGHTS),
            // What the verifier says to a program that it would take with CAP_PERFMON.
            Some(Errno::ACCESS) if self.in_one_line().contains("prohibited for !root") => {
                (Health::Unsupported, RIGHTS)
            }
            Some(Errno::NOSYS) => (Health::Unsupported, "; this kernel is built without bpf(2)"),
            _ => (Health::Failed, ""),
        };
        ComponentHealth::new(state, format!("cannot run the eBPF programs: {}{advice}", self.in_one_line()))
            .with_errno(errno)
    }

    /// It lacks something, as one that is too old.
    fn is_of_the_kernel(&self) -> bool {
        let lacks_types = matches!(self, Self::KernelTypes(_) | Self::ReadBtf { .. } | Self::Btf(_));
        lacks_types || matches!(self, Self::OtherTasks | Self::CpuGaps | Self::Program(ProgramError::Btf(_)))
    }

    /// The causes, outermost first. Of a verifier log, the line that says why; all of it goes to the debug log.
    pub(crate) fn in_one_line(&self) -> String {
        if let Self::Program(ProgramError::LoadError { io_error, verifier_log }) = self {
            tracing::debug!("verifier log:\n{verifier_log}");
            let log = verifier_log.to_string();
            return format!("{io_error}; the verifier's message: {}", verdict(&log).unwrap_or("nothing"));
        }
        in_one_line(self)
    }
}

/// The last line that is not a statistic.
fn verdict(verifier_log: &str) -> Option<&str> {
    const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];
    let is_statistic = |line: &&str| STATISTICS.iter().any(|start| line.starts_with(start));
    verifier_log.lines().rev().map(str::trim).find(|line| !line.is_empty() && !is_statistic(line))
}

/// The error number at the end of the chain of causes.
pub(crate) fn errno_of(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(errno) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(errno);
        }
        cause = error.source();
    }
    None
}

/// `None` where the kernel answers that something is not there. That it does not answer is no such answer.
pub(crate) fn unless<T>(not_there: &[Errno], result: Result<T, LoadError>) -> Result<Option<T>, LoadError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            let errno = errno_of(&error).map(Errno::from_raw_os_error);
            if errno.is_some_and(|errno| not_there.contains(&errno)) { Ok(None) } else { Err(error) }
        }
    }
}

/// Why one TAP is not counted by eBPF.
#[derive(Debug, Error)]
#[error("cannot attach to {device}: {source}")]
pub(crate) struct AttachError {
    device: String,
    source: Box<LoadError>,
}

impl AttachError {
    pub(crate) fn new(device: &str, source: LoadError) -> Self {
        Self { device: device.to_owned(), source: Box::new(source) }
    }
}

impl From<&AttachError> for ReaderError {
    fn from(error: &AttachError) -> Self {
        Self::Device {
            device: error.device.clone(),
            problem: format!("cannot attach the programs: {}", error.source.in_one_line()),
            errno: errno_of(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_precedes_the_statistics() {
        let log = "0: R1=ctx()\n7: (71) r3 = *(u8 *)(r1 +0)\ninvalid access to packet\nstack depth 56+0\nprocessed 142 insns\n\n";
        assert_eq!(verdict(log), Some("invalid access to packet"));
        assert_eq!(verdict("processed 1 insns"), None);
    }

    #[test]
    fn a_missing_right_is_named_and_no_failure() {
        let denied = LoadError::Mmap(io::Error::from_raw_os_error(Errno::PERM.raw_os_error()));
        let health = denied.health();
        assert_eq!((health.state, health.errno), (Health::Unsupported, Some(1)));
        assert!(health.reason.contains("CAP_BPF"), "{}", health.reason);
    }

    #[test]
    fn a_denied_question_is_no_answer() {
        let denied = |errno: Errno| Err::<(), _>(LoadError::Query(errno.into()));
        assert!(matches!(unless(&[Errno::NOENT], denied(Errno::NOENT)), Ok(None)));
        for errno in [Errno::PERM, Errno::ACCESS, Errno::NOMEM, Errno::MFILE] {
            unless(&[Errno::NOENT], denied(errno)).unwrap_err();
        }
        unless(&[Errno::NOENT], Err::<(), _>(LoadError::NoSlot)).unwrap_err();
    }

    #[test]
    fn other_faults_are_failures() {
        let health = LoadError::Missing { kind: "map", name: "COUNTERS" }.health();
        assert_eq!((health.state, health.errno), (Health::Failed, None));
        let says = "cannot run the eBPF programs: the eBPF programs in this binary lack the map COUNTERS: \
                    build the binary anew";
        assert_eq!(health.reason, says);
    }
}
