//! Checks that a declared pid still means the process of its declaration.
//!
//! Without evidence the pid counts, and readers report the files that they cannot read.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};

use crate::sources::SourceError;
use crate::sources::process::ReadError;
use crate::sources::process::lookup::ProcessLookup;

/// A process is there before its pid is written. That it seems to have started later may come from a clock that was
/// set meanwhile, as after a boot; a pid is hardly ever used again so soon.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// One pid, as the configuration or a file has it.
#[derive(Debug, Default)]
pub struct PidGuard {
    first: Option<GuardedProcess>,
}

/// The process that the pid was found to be.
#[derive(Debug)]
struct GuardedProcess {
    pid: u32,
    /// When the pid's file was last written.
    written: Option<SystemTime>,
    start_ticks: u64,
}

impl PidGuard {
    /// An error where the process has ended, or is another. `file` is where the pid is from, if not from the
    /// configuration, and when it was last written.
    pub fn check(
        &mut self,
        processes: &ProcessLookup,
        pid: u32,
        file: Option<(&Path, Option<SystemTime>)>,
    ) -> Result<(), SourceError> {
        let start_ticks = match processes.stat(pid) {
            Ok(stat) if !stat.is_dead() => stat.start_ticks,
            Ok(_) | Err(ReadError::Gone) => return Err(SourceError::NoProcess { pid }),
            Err(ReadError::Failed(_)) => return Ok(()),
        };
        let written = file.and_then(|(_, modified)| modified);
        match &mut self.first {
            // A known process needs no clock.
            Some(first) if (first.pid, first.start_ticks) == (pid, start_ticks) => {
                first.written = written;
                return Ok(());
            }
            Some(first) if (first.pid, first.written) == (pid, written) => {
                return Err(SourceError::process(pid, "not the process that had this pid before"));
            }
            _ => {}
        }
        if let Some((path, Some(written))) = file
            && let Some(later) = started_after(start_ticks, written)
        {
            let problem = format!("process {pid} is another: it started {} s later", later.as_secs());
            return Err(SourceError::content(path, problem));
        }
        self.first = Some(GuardedProcess { pid, written, start_ticks });
        Ok(())
    }

    /// The process that was last found to be the one, and when its pid was written.
    pub fn last(&self) -> Option<(u32, Option<SystemTime>)> {
        self.first.as_ref().map(|first| (first.pid, first.written))
    }
}

/// How much later than it was written a process started; `None` for one that was there then.
pub fn started_after(start_ticks: u64, written: SystemTime) -> Option<Duration> {
    started(start_ticks).duration_since(written).ok().filter(|later| *later > CLOCK_SLACK)
}

fn started(start_ticks: u64) -> SystemTime {
    let up = clock_gettime(ClockId::Boottime);
    let up = Duration::new(up.tv_sec.unsigned_abs(), up.tv_nsec.unsigned_abs().try_into().unwrap_or(0));
    let started = Duration::from_secs_f64(start_ticks as f64 / clock_ticks_per_second() as f64);
    SystemTime::now() - up.saturating_sub(started)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::process;

    use super::*;
    use crate::host::Host;
    use crate::model::Trust;
    use crate::sources::proc_scan::fixture::{Fake, Fixture};

    fn written(path: &Path, ago: Duration) {
        File::create(path).unwrap().set_modified(SystemTime::now() - ago).unwrap();
    }

    fn with_time(path: &Path) -> Option<(&Path, Option<SystemTime>)> {
        Some((path, fs::metadata(path).unwrap().modified().ok()))
    }

    #[test]
    fn a_process_younger_than_the_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.pid");
        let me = process::id();
        let mut pid = PidGuard::default();
        written(&path, Duration::from_secs(3600));
        let problem = pid.check(&ProcessLookup::default(), me, with_time(&path)).unwrap_err().to_string();
        let expected = format!("{}: process {me} is another: it started 3", path.display());
        assert!(problem.starts_with(&expected) && problem.ends_with(" s later"), "{problem}");

        written(&path, Duration::ZERO);
        pid.check(&ProcessLookup::default(), me, with_time(&path)).unwrap();
    }

    /// The start of a process is told by the clock of now, the file has that of then.
    #[test]
    fn a_changed_clock_keeps_a_known_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.pid");
        let mut pid = PidGuard::default();
        for ago in [0, 3600] {
            written(&path, Duration::from_secs(ago));
            pid.check(&ProcessLookup::default(), process::id(), with_time(&path)).unwrap();
        }
    }

    #[test]
    fn this_process_started_a_moment_ago() {
        let stat = ProcessLookup::default().stat(process::id()).unwrap();
        let ago = SystemTime::now().duration_since(started(stat.start_ticks)).unwrap();
        assert!(ago < Duration::from_secs(3600), "{ago:?}");
    }

    #[test]
    fn a_rewritten_file_may_name_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let (path, host) = (dir.path().join("vm.pid"), Host::new(dir.path().join("proc"), "/none"));
        fs::create_dir_all(host.process(42)).unwrap();
        let mut pid = PidGuard::default();
        let mut check = |start_ticks: u64| {
            let stat = format!("42 (x) S 1 42 42 0 -1 0 1 2 3 4 10 20 0 0 20 0 1 0 {start_ticks} 1 2\n");
            fs::write(host.process(42).join("stat"), stat).unwrap();
            let processes = ProcessLookup::new(host.clone(), Trust::default());
            pid.check(&processes, 42, with_time(&path)).is_ok()
        };
        written(&path, Duration::from_secs(2));
        assert!(check(1) && !check(2));
        written(&path, Duration::from_secs(1));
        assert!(check(2) && check(2));
    }

    #[test]
    fn a_process_that_has_ended_is_not_there() {
        let fixture = Fixture::with(&[Fake { state: 'Z', ..Fake::QEMU }]);
        let mut pid = PidGuard::default();
        let mut check = |of| pid.check(&fixture.context().processes, of, None);
        for of in [100, 101] {
            assert_eq!(
                check(of).unwrap_err().to_string(),
                format!("process {of} is not there, or has ended")
            );
        }
        fixture.break_file(&fixture.process(100).join("stat"));
        check(100).unwrap();
    }
}
