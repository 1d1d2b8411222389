//! Id, name and fingerprints of a VM whose program is unknown.

use std::fs;

use crate::procfs::{Cgroup, Stat, lasting_path, parse_cgroup};
use crate::sources::merge::fingerprints::Fingerprints;
use crate::sources::process::ProcessDir;
use crate::sources::{files, shortened};

/// The kernel's usual limit for all variables together.
const ENVIRON_LIMIT: u64 = 2 << 20;

/// systemd gives the process of a unit its own pid, which all processes that come from it inherit.
const UNIT_PID: &str = "SYSTEMD_EXEC_PID=";

#[derive(Debug)]
pub struct KvmIdentity {
    pub id: String,
    pub name: String,
    pub fingerprints: Fingerprints,
}

/// Its container, unit or pod names it. That is also its id where the process was started from outside: then it is not
/// one of several that a manager runs in its own unit. Else the id is program and pid.
pub fn identity(process: &ProcessDir, stat: &Stat, program: &str) -> KvmIdentity {
    let content = process.cgroup();
    let own = parse_cgroup(&content);
    let is_main = own.service.is_none() || own.container.is_some() || is_main(process, stat);
    let own = group(own);
    let is_alone = is_main && own.is_some() && own != group(parse_cgroup(&process.other(stat.ppid).cgroup()));
    let id = own.clone().filter(|_| is_alone).unwrap_or_else(|| format!("{program}-{}", process.pid));
    let (path, uid) = (lasting_path(&content), format!("{:?}", process.uid()));
    let cwd = fs::read_link(process.path("cwd")).unwrap_or_default();
    let start = stat.start_ticks.to_string();
    // A pid is another process's later.
    let always = if is_alone { vec![path.as_str(), program] } else { vec![&path, program, &uid, &start] };
    KvmIdentity {
        fingerprints: Fingerprints::new([&always, &[&uid, &cwd.to_string_lossy()], &[]]),
        id: shortened(&id),
        name: shortened(&own.unwrap_or(id)),
    }
}

/// Whether systemd has started it as the process of its service. The parent of others may end before them.
fn is_main(process: &ProcessDir, stat: &Stat) -> bool {
    let environ = files::read_start(&process.path("environ"), ENVIRON_LIMIT).unwrap_or_default();
    let variables = environ.split(|byte| *byte == 0);
    let unit_pid = variables.filter_map(|variable| variable.strip_prefix(UNIT_PID.as_bytes())).next();
    stat.session == process.pid && unit_pid.is_none_or(|pid| pid == process.pid.to_string().as_bytes())
}

fn group(cgroup: Cgroup) -> Option<String> {
    cgroup.container.or(cgroup.scope).or(cgroup.service).or(cgroup.pod)
}
