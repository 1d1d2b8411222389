//! Checks that a recorded pid still is the hypervisor of its VM.
//!
//! After a boot, or a crash of the orchestrator, the pid of a record may be any process.

use crate::model::Hypervisor;
use crate::procfs::executable;
use crate::sources::process::ReadError;
use crate::sources::process::lookup::{ProcessLookup, ProcessProgram};
use crate::sources::values::uuid;

/// Which process a pid was when it was found to be the VM's.
#[derive(Debug, Default)]
pub struct HypervisorPid {
    found: Option<HypervisorProcess>,
}

#[derive(Clone, Copy, Debug)]
pub struct HypervisorProcess {
    pub pid: u32,
    pub start_ticks: u64,
    pub hypervisor: Hypervisor,
}

/// A hypervisor that has the pid.
#[derive(Debug)]
pub struct Candidate {
    pub hypervisor: Hypervisor,
    pub argv: Vec<String>,
    pub start_ticks: u64,
}

impl HypervisorPid {
    /// The process, when it is a hypervisor and one of its arguments has this mark of the VM in it: an id or a path.
    /// `None`: the VM does not run.
    pub fn check(&mut self, processes: &ProcessLookup, pid: u32, mark: &str) -> Option<HypervisorProcess> {
        self.check_by(processes, pid, |candidate| {
            candidate.argv.iter().any(|argument| has_mark(argument, mark))
        })
    }

    /// The same with another way to know the VM's process.
    pub fn check_by(
        &mut self,
        processes: &ProcessLookup,
        pid: u32,
        is_it: impl FnOnce(&Candidate) -> bool,
    ) -> Option<HypervisorProcess> {
        let stat = match processes.stat(pid) {
            Ok(stat) => Some(stat).filter(|stat| !stat.is_dead())?,
            // Without an answer the last result counts.
            Err(ReadError::Failed(_)) => return self.found.filter(|found| found.pid == pid),
            Err(ReadError::Gone) => return None,
        };
        let found = self.found.filter(|found| (found.pid, found.start_ticks) == (pid, stat.start_ticks));
        self.found = found.or_else(|| {
            let ProcessProgram { name, argv, .. } = processes.program(pid).ok()?;
            let candidate = Candidate {
                hypervisor: executable::hypervisor(&name?)?,
                argv,
                start_ticks: stat.start_ticks,
            };
            let Candidate { hypervisor, start_ticks, .. } = candidate;
            is_it(&candidate).then_some(HypervisorProcess { pid, start_ticks, hypervisor })
        });
        self.found
    }
}

/// A UUID may be in upper case.
fn has_mark(argument: &str, mark: &str) -> bool {
    argument.contains(mark)
        || uuid::is_uuid(mark) && argument.to_ascii_lowercase().contains(&uuid::canonical(mark))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::proc_scan::fixture::{Fake, Fixture};

    #[test]
    fn only_the_vms_hypervisor_keeps_its_pid() {
        let ours = Fake { args: "qemu-system-x86_64 -uuid 0123", ..Fake::QEMU };
        let fixture = Fixture::with(&[ours]);
        let mut pid = HypervisorPid::default();
        let processes = fixture.context().processes;
        let mut check = || pid.check(&processes, 100, "0123").map(|found| found.hypervisor);
        assert_eq!(check(), Some(Hypervisor::Qemu));
        for other in [
            Fake { args: "qemu-system-x86_64 -uuid 4567", start: 6000, ..Fake::QEMU },
            Fake { exe: "/usr/bin/vim", args: "vim 0123", start: 6001, ..Fake::QEMU },
            Fake { args: "qemu-system-x86_64 -uuid 0123", state: 'Z', ..Fake::QEMU },
        ] {
            fixture.put(&other);
            assert_eq!(check(), None, "{}", other.args);
        }
        fixture.put(&Fake { args: "qemu-system-x86_64 -uuid 0123", start: 7000, ..Fake::QEMU });
        assert_eq!(check(), Some(Hypervisor::Qemu));
        fixture.end(100);
        assert_eq!(check(), None);
    }

    #[test]
    fn a_uuid_matches_in_any_case() {
        let (lower, upper) = ("6f9c7d5e-3f7d-4d0a-9d39-0f0d3a6b1c55", "6F9C7D5E-3F7D-4D0A-9D39-0F0D3A6B1C55");
        assert!(has_mark(upper, lower) && has_mark(&format!("type=1,uuid={lower}"), upper));
        assert!(!has_mark("WEB", "web"));
    }
}
