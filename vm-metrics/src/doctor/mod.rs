//! `vm-metrics doctor`: checks the host and the daemon, and names remedies.
//!
//! The checks are about the running daemon, or else about a daemon that this user would start.

mod check;
mod component;
mod host;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use anyhow::{anyhow, bail};
use nix::unistd::{Uid, User};
use serde::Serialize;

use self::check::{Check, Sign, Style, render};
use crate::app::App;
use crate::config::Settings;
use crate::documents::{Component, Vm, Vms};
use crate::host::Host;
use crate::local_daemon::LocalDaemon;
use crate::model::{Trust, in_one_line};
use crate::readers::Purpose;
use crate::snapshot::{document, look};
use crate::terminal::{print, printable_json};

/// Options of the output and the exit code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) json: bool,
    pub(crate) strict: bool,
    /// Whether the running daemon is left alone.
    pub(crate) no_daemon: bool,
}

/// As JSON.
#[derive(Serialize)]
struct Report<'c> {
    version: &'static str,
    checks: &'c [Check],
}

pub(crate) fn run(app: App, options: Options) -> anyhow::Result<()> {
    let checks = checks(app, options)?;
    if options.json {
        let report = Report { version: env!("CARGO_PKG_VERSION"), checks: &checks };
        print(&(printable_json(&serde_json::to_string_pretty(&report)?) + "\n"))?;
    } else {
        print(&render(&checks, Style::of_output()))?;
    }
    let bad = checks.iter().filter(|check| matches!(check.result, Sign::Bad | Sign::Partly)).count();
    if options.strict && bad > 0 {
        bail!("{bad} of the checks fail");
    }
    Ok(())
}

fn checks(app: App, options: Options) -> anyhow::Result<Vec<Check>> {
    let settings = app.settings().clone();
    let asked = match options.no_daemon {
        true => Err(anyhow!("--no-daemon")),
        false => LocalDaemon::find_by_socket(&settings),
    };
    let (daemon, unanswered) = match asked {
        Ok(daemon) => (Some(daemon), String::new()),
        Err(error) if is_denied(&error) => return Ok(vec![host::daemon_is_closed()]),
        Err(error) => (None, in_one_line(error.as_ref())),
    };
    let (version, components, vms) = match &daemon {
        Some(daemon) => {
            let report = daemon.report()?;
            (report.version, report.components, daemon.json::<Vms>("/api/v1/vms")?.vms)
        }
        None => {
            let snapshot = look(&app.into_manager(Purpose::Look)?);
            let vms: Vms = serde_json::from_slice(&document(&snapshot)?)?;
            (None, snapshot.components.iter().map(Component::from).collect(), vms.vms)
        }
    };
    let pid = daemon.as_ref().and_then(|daemon| Some(daemon.peer()?.0));
    let mut checks = vec![match &daemon {
        Some(daemon) => host::running_daemon(daemon, version.as_deref()),
        None => host::no_daemon_answers(&unanswered),
    }];
    checks.extend(checks_of_host(&settings, daemon.as_ref(), pid));
    checks.extend(components.iter().find_map(component::pins));
    checks.extend(components.iter().map(component::check));
    checks.extend(checks_of_vms(&settings, &vms));
    Ok(checks)
}

/// Whether the socket is closed to this user.
fn is_denied(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn checks_of_host(settings: &Settings, daemon: Option<&LocalDaemon>, pid: Option<u32>) -> Vec<Check> {
    let mut checks = Vec::new();
    // A fixture host has no rights, kernel or files of its own.
    if settings.host.is_this_kernel() {
        checks.extend(host::rights(pid));
        checks.extend(host::kernel(&settings.host));
        checks.push(host::open_files(&settings.host, pid));
    }
    checks.extend(host::addresses(settings, daemon));
    checks
}

fn checks_of_vms(settings: &Settings, vms: &[Vm]) -> Vec<Check> {
    let users = users(vms, &settings.host);
    let mut checks =
        vec![trust(&settings.trust, &users), Check::new(Sign::Good, "VMs", vms.len().to_string())];
    for vm in vms {
        for nic in &vm.unmonitored {
            let detail =
                format!("{}: {} {}: {}", vm.instance_id, nic.kind.as_str(), nic.name, nic.kind.reason());
            checks.push(Check::new(Sign::Absent, "unmonitored network", detail));
        }
    }
    checks
}

/// The users, other than root, whose processes are VMs: by name, else by number.
fn users(vms: &[Vm], host: &Host) -> BTreeSet<Result<String, u32>> {
    let owner = |pid| fs::metadata(host.process(pid)).ok().map(|process| process.uid());
    let uids = vms.iter().filter_map(|vm| owner(vm.hypervisor_pid?)).filter(|uid| *uid != 0);
    uids.map(|uid| match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => Ok(user.name),
        _ => Err(uid),
    })
    .collect()
}

fn trust(trust: &Trust, users: &BTreeSet<Result<String, u32>>) -> Check {
    if !trust.is_open() {
        let detail = "root and the users in [trust]; processes of others are no VMs";
        return Check::new(Sign::Good, "trust", detail);
    }
    let check = Check::new(Sign::Good, "trust", "open: a process of any user may be a VM");
    let names: Vec<_> = users.iter().filter_map(|user| user.as_ref().ok()).collect();
    let numbers: Vec<_> = users.iter().filter_map(|user| user.as_ref().err()).collect();
    let mut lines = "to trust only root and the present users, add to the configuration:\n[trust]".to_owned();
    if !names.is_empty() {
        lines += &format!("\nusers = {names:?}");
    }
    if !numbers.is_empty() {
        lines += &format!("\nuids = {numbers:?}");
    }
    check.with_remedy((!users.is_empty()).then_some(lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn an_open_host_is_told_how_to_close() {
        let style = Style::of_output();
        let users = [Ok("root".to_owned()), Err(1000)].into_iter().collect();
        let shown = render(&[trust(&Trust::default(), &users)], style);
        let proposed = shown.lines().skip(2).map(str::trim).collect::<Vec<_>>().join("\n");
        let config = Config::parse("test.toml".as_ref(), &proposed).unwrap();
        assert_eq!(config.settings.trust, Trust::only([0, 1000]), "{shown}");
        let of_root = render(&[trust(&Trust::default(), &BTreeSet::new())], style);
        assert!(of_root.lines().count() == 1, "no user is named: {of_root}");
        let numbers = [Err(1000)].into_iter().collect();
        assert!(!render(&[trust(&Trust::default(), &numbers)], style).contains("users ="));
        assert!(render(&[trust(&Trust::only([]), &users)], style).contains("root and the users in [trust]"));
    }
}
