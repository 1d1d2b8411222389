//! Reads the pid of a VM from a file that the operator names.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::pid_guard::PidGuard;
use crate::sources::{SourceContext, SourceError, files};

/// A pid and a newline; some programs write a line or two more.
const LIMIT: u64 = 4 << 10;

/// While the file is half, cannot be read or does not count, the pid that it had before counts.
pub fn pid_in(
    path: &Path,
    context: &SourceContext,
    guard: &PidGuard,
    problems: &mut Vec<SourceError>,
) -> Option<(u32, Option<SystemTime>)> {
    match read_pid(path, context) {
        Ok(found) => Some(found),
        Err(problem) => {
            let is_gone = problem.io_kind() == Some(io::ErrorKind::NotFound);
            problems.push(problem);
            guard.last().filter(|_| !is_gone)
        }
    }
}

/// The first line counts. Messages never quote the file.
fn read_pid(path: &Path, context: &SourceContext) -> Result<(u32, Option<SystemTime>), SourceError> {
    let failed = |error| SourceError::io("read", path, error);
    let (file, authors) = context.operators.open(path).map_err(failed)?;
    let content = files::read_located(file, LIMIT).map_err(failed)?;
    let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let pid = str::from_utf8(line).ok().and_then(|line| line.trim().parse().ok()).filter(|pid| *pid > 0);
    let pid = pid.ok_or_else(|| SourceError::content(path, "there is no pid in it"))?;
    authors.may_name(&context.processes, pid).map_err(|problem| SourceError::content(path, problem))?;
    Ok((pid, authors.modified()))
}
