//! `vm-metrics doctor`: one tick, exactly as the daemon would do it, and what came of each part.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::unistd::{Uid, User};
use rustix::process::{Resource, getrlimit};

use crate::app::App;
use crate::cli::print;
use crate::config::{Config, Settings};
use crate::host::Host;
use crate::model::{PartRun, Printable, Snapshot, Trust};
use crate::readers::Purpose;

pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    let app = App::new(config)?;
    let settings = app.settings().clone();
    let snapshot = app.into_manager(Purpose::Look)?.collect();
    print(&report(&snapshot, &settings))
}

fn report(snapshot: &Snapshot, settings: &Settings) -> String {
    let Settings { host, trust, listen, .. } = settings;
    let kernel = rustix::system::uname();
    let files =
        getrlimit(Resource::Nofile).maximum.map_or_else(|| "no limit".to_owned(), |max| max.to_string());
    let mut report = String::new();
    let mut line = |what: &str, is: &str| {
        let _ = writeln!(report, "{what:<22} {}", Printable(is));
    };
    line("vm-metrics", env!("CARGO_PKG_VERSION"));
    line("kernel", &kernel.release().to_string_lossy());
    line("kernel BTF", &kernel_btf(host));
    line("open files allowed", &files);
    line("listen", &format!("{listen} ({})", listen.place()));
    line("trust", &trusted(trust, &users(snapshot, host)));
    for part in &snapshot.parts {
        line(&format!("{} {}", part.kind.as_str(), part.name), &describe(part));
    }
    line("VMs", &snapshot.vms.len().to_string());
    for vm in &snapshot.vms {
        for nic in &vm.uncounted {
            let (kind, name) = (nic.kind.as_str(), &nic.name);
            line("network not counted", &format!("{}: {kind} {name}: {}", vm.instance_id, nic.kind.reason()));
        }
    }
    report
}

fn kernel_btf(host: &Host) -> String {
    match host.btf().try_exists() {
        Ok(is_there) => if is_there { "yes" } else { "no" }.to_owned(),
        Err(error) => format!("unknown: cannot look at {}: {error}", host.btf().display()),
    }
}

/// The users, other than root, whose processes are VMs: by name, else by number.
fn users(snapshot: &Snapshot, host: &Host) -> BTreeSet<Result<String, u32>> {
    let owner = |pid| fs::metadata(host.process(pid)).ok().map(|process| process.uid());
    let uids = snapshot.vms.iter().filter_map(|vm| owner(vm.hypervisor_pid?)).filter(|uid| *uid != 0);
    uids.map(|uid| match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => Ok(user.name),
        _ => Err(uid),
    })
    .collect()
}

fn trusted(trust: &Trust, users: &BTreeSet<Result<String, u32>>) -> String {
    if !trust.is_open() {
        return "root and the users in [trust]; processes of others are no VMs".to_owned();
    }
    let names: Vec<_> = users.iter().filter_map(|user| user.as_ref().ok()).collect();
    let numbers: Vec<_> = users.iter().filter_map(|user| user.as_ref().err()).collect();
    format!(
        "open: a process of any user may be a VM; to let only root's and those of today: [trust] users = {names:?}, \
         uids = {numbers:?}"
    )
}

fn describe(part: &PartRun) -> String {
    let health = &part.health;
    let mut text = format!("{} ({} read)", health.state.as_str(), part.items);
    if !health.reason.is_empty() {
        let _ = write!(text, ": {}", health.reason);
    }
    if let Some(errno) = health.errno {
        let _ = write!(text, " (errno {errno})");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_host_is_told_how_to_close() {
        let users = [Ok("libvirt-qemu".to_owned()), Err(1000)].into_iter().collect();
        let advice = trusted(&Trust::default(), &users);
        assert!(advice.ends_with("[trust] users = [\"libvirt-qemu\"], uids = [1000]"), "{advice}");
        assert!(trusted(&Trust::only([]), &users).starts_with("root and the users in [trust]"));
    }
}
