//! Id and name of a VM of which only its process is known.

use super::super::process::{Process, read};
use crate::procfs::{Cgroup, parse_cgroup};
use crate::sources::shortened;

/// A line for each hierarchy, each with a path.
const CGROUP_LIMIT: u64 = 64 << 10;

/// Its container, unit or pod names it. That is also its id where the process was started from outside: then it is not
/// one of several that a manager runs in its own unit. Else the id is program and pid.
pub fn identity(process: &Process, parent: u32, program: &str) -> (String, String) {
    let group = |process: &Process| group(cgroup(process));
    let own = group(process);
    let is_alone = own.is_some() && own != group(&process.other(parent));
    let id = own.clone().filter(|_| is_alone).unwrap_or_else(|| format!("{program}-{}", process.pid));
    (shortened(&id), shortened(&own.unwrap_or(id)))
}

fn cgroup(process: &Process) -> Cgroup {
    read(&process.path("cgroup"), CGROUP_LIMIT).map(|content| parse_cgroup(&content)).unwrap_or_default()
}

fn group(cgroup: Cgroup) -> Option<String> {
    cgroup.container.or(cgroup.scope).or(cgroup.service).or(cgroup.pod)
}
