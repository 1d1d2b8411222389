//! Checks of the host: rights, limits, kernel and addresses.

use std::fmt::Display;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::unistd::{Uid, User};
use rustix::fs::statfs;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Pid, Resource, geteuid, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::check::{Check, Sign};
use crate::config::{ListenAddress, Settings};
use crate::host::Host;
use crate::http::port_user::{self, Program};
use crate::local_daemon::LocalDaemon;
use crate::readers::FileBudget;

/// Each capability with its use. The last is only for network namespaces of VMs.
const RIGHTS: [(CapabilitySet, &str, &str); 6] = [
    (CapabilitySet::BPF, "CAP_BPF", "eBPF"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN", "eBPF on the TAPs"),
    (CapabilitySet::PERFMON, "CAP_PERFMON", "eBPF, and dropped bytes"),
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE", "TAPs and disk bytes of processes of other users"),
    (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH", "TAPs of processes of other users"),
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN", "eBPF in network namespaces of VMs only"),
];

const ANOTHER: &str = "another address by --listen or the key listen";

/// A user by name and number.
pub(super) fn user(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => format!("{} ({uid})", user.name),
        _ => format!("{uid}"),
    }
}

/// The check that names the running daemon, which the other checks are about.
pub(super) fn running_daemon(daemon: &LocalDaemon, version: Option<&str>) -> Check {
    let who = daemon.peer().map(|(pid, uid)| format!("process {pid}, user {}, ", user(uid)));
    let version = version.unwrap_or("unknown");
    let detail = format!("{}version {version}: this report is of {daemon}", who.unwrap_or_default());
    Check::new(Sign::Good, "running daemon", detail)
}

/// The check for a host without a reachable daemon: the others are about a daemon that this user would start.
pub(super) fn no_daemon_answers(unanswered: &str) -> Check {
    const AS_THE_UNIT: &str = "systemd-run --wait --pipe -p User=vm-metrics -p AmbientCapabilities=\"CAP_BPF CAP_NET_ADMIN \
                               CAP_PERFMON CAP_SYS_PTRACE CAP_DAC_READ_SEARCH\" vm-metrics doctor";
    let us = user(geteuid().as_raw());
    let detail =
        format!("none answers ({unanswered}): this report is of a daemon that user {us} would start");
    let remedy = format!("with the rights of the unit: {AS_THE_UNIT}");
    Check::new(Sign::Absent, "running daemon", detail).with_remedy((!has_rights_of_unit()).then_some(remedy))
}

/// The only check for a user who may not query the daemon.
pub(super) fn daemon_is_closed() -> Check {
    let us = user(geteuid().as_raw());
    let remedy = format!("run doctor as root; --no-daemon checks a daemon that user {us} would start");
    let detail = "a daemon may run here, but only root and its user may query it";
    Check::new(Sign::Bad, "running daemon", detail).with_remedy(Some(remedy))
}

/// Whether this process has all capabilities of the systemd unit.
fn has_rights_of_unit() -> bool {
    let needed = RIGHTS.iter().fold(CapabilitySet::empty(), |all, (set, ..)| all | *set);
    let needed = needed - CapabilitySet::SYS_ADMIN;
    !geteuid().is_root() && capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Checks of the capabilities of the daemon, else of this process.
pub(super) fn rights(pid: Option<u32>) -> Vec<Check> {
    let process = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let Ok(sets) = capabilities(process) else { return Vec::new() };
    let right = |(set, name, purpose): (CapabilitySet, &str, &str)| {
        let (sign, is) = match (sets.effective.contains(set), set == CapabilitySet::SYS_ADMIN) {
            (true, _) => (Sign::Good, "there"),
            (false, true) => (Sign::Absent, "not there"),
            (false, false) => (Sign::Bad, "not there"),
        };
        let remedy = (sign == Sign::Bad)
            .then(|| format!("run it as root, or add AmbientCapabilities={name} to the unit"));
        Check::new(sign, name, format!("{is}; for {purpose}")).with_remedy(remedy)
    };
    RIGHTS.into_iter().map(right).collect()
}

pub(super) fn kernel(host: &Host) -> Vec<Check> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let btf = match host.btf().try_exists() {
        Ok(true) => Check::new(Sign::Good, "kernel BTF", "there; for wire packets and dropped bytes"),
        Ok(false) => Check::new(Sign::Bad, "kernel BTF", "not there: no wire packets, no dropped bytes")
            .with_remedy(Some("a kernel with CONFIG_DEBUG_INFO_BTF".to_owned())),
        Err(error) => {
            let detail = format!("unknown: cannot look at {}: {error}", host.btf().display());
            Check::new(Sign::Bad, "kernel BTF", detail)
        }
    };
    vec![Check::new(Sign::Good, "kernel", release), btf, bpffs(&host.bpf_fs())]
}

fn bpffs(path: &Path) -> Check {
    const MAGIC: i64 = 0xcafe_4a11;
    let name = "bpffs";
    match statfs(path) {
        Ok(stat) if stat.f_type == MAGIC => {
            Check::new(Sign::Good, name, format!("mounted on {}", path.display()))
        }
        Ok(_) => {
            Check::new(Sign::Bad, name, format!("not mounted on {}: nothing can be pinned", path.display()))
                .with_remedy(Some(format!("mount -t bpf bpf {}, or mount_bpffs = true", path.display())))
        }
        Err(errno) => {
            let detail = format!("cannot look at {}: {}", path.display(), io::Error::from(errno));
            Check::new(Sign::Bad, name, detail)
        }
    }
}

/// The hard limit, up to which the daemon raises its own.
pub(super) fn open_files(host: &Host, pid: Option<u32>) -> Check {
    let limit = match pid {
        Some(pid) => limit_of(host, pid),
        None => Some(getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)),
    };
    let Some(limit) = limit else {
        return Check::new(Sign::Absent, "open files", "the limit is unreadable");
    };
    let budget = FileBudget::of(limit);
    let shown = if limit == u64::MAX { "no limit".to_owned() } else { limit.to_string() };
    let remedy = || Some("raise LimitNOFILE= of the unit, or ulimit -n".to_owned());
    match budget.shortage() {
        Some(needed) => {
            Check::new(Sign::Bad, "open files", format!("{shown} allowed: at least {needed} are needed"))
                .with_remedy(remedy())
        }
        None => {
            Check::new(Sign::Good, "open files", format!("{shown} allowed: enough for {} VMs", budget.vms()))
        }
    }
}

/// `Max open files            1024                 524288               files`
fn limit_of(host: &Host, pid: u32) -> Option<u64> {
    let limits = fs::read_to_string(host.process(pid).join("limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Whether the daemon can listen on the configured addresses.
pub(super) fn addresses(settings: &Settings, daemon: Option<&LocalDaemon>) -> Vec<Check> {
    let daemon = daemon.map(LocalDaemon::peer);
    let checks = settings.listen.addresses().iter().flat_map(|address| checks_of_address(address, daemon));
    checks.map(|check| check.with_place(settings.listen.place())).collect()
}

/// Process and user of the running daemon, if known.
type DaemonProcess = Option<Option<(u32, u32)>>;

fn checks_of_address(listen: &ListenAddress, daemon: DaemonProcess) -> Vec<Check> {
    if let ListenAddress::Unix(path) = listen {
        return vec![check_of_socket(listen, path, daemon)];
    }
    match listen.resolve() {
        Ok(addresses) => addresses.iter().map(|address| check_of_tcp(*address, daemon)).collect(),
        Err(error) => {
            let detail = format!("the name cannot be resolved: {error}");
            vec![
                Check::new(Sign::Bad, format!("listen {listen}"), detail)
                    .with_remedy(Some(ANOTHER.to_owned())),
            ]
        }
    }
}

fn check_of_socket(listen: &ListenAddress, path: &Path, daemon: DaemonProcess) -> Check {
    let Ok(stream) = UnixStream::connect(path) else { return check_of_free(listen, daemon) };
    let listener = socket_peercred(&stream).ok().and_then(|peer| u32::try_from(peer.pid.as_raw_pid()).ok());
    let is_daemon = daemon.is_some_and(|daemon| daemon.is_none_or(|(pid, _)| listener == Some(pid)));
    let who = listener.and_then(Program::of);
    check_of_used(listen, is_daemon, &who.map_or_else(|| "another process".to_owned(), |who| who.to_string()))
}

fn check_of_tcp(address: SocketAddr, daemon: DaemonProcess) -> Check {
    match TcpListener::bind(address) {
        Ok(_) => check_of_free(address, daemon),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let is_daemon = daemon.is_some_and(|daemon| {
                daemon.is_none_or(|(pid, uid)| port_user::is_process(address, pid, uid))
            });
            check_of_used(address, is_daemon, &port_user::of(address))
        }
        Err(error) => Check::new(Sign::Bad, format!("listen {address}"), format!("cannot listen: {error}"))
            .with_remedy(Some(ANOTHER.to_owned())),
    }
}

fn check_of_free(address: impl Display, daemon: DaemonProcess) -> Check {
    let name = format!("listen {address}");
    match daemon {
        Some(_) => Check::new(Sign::Absent, name, "free: the running daemon listens elsewhere"),
        None => Check::new(Sign::Good, name, "free"),
    }
}

fn check_of_used(address: impl Display, is_daemon: bool, who: &str) -> Check {
    let name = format!("listen {address}");
    if is_daemon {
        return Check::new(Sign::Good, name, "in use by the daemon");
    }
    Check::new(Sign::Bad, name, format!("{who} listens there"))
        .with_remedy(Some(format!("stop it, or choose {ANOTHER}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another program has the port of the configuration, and the daemon listens elsewhere.
    #[test]
    fn a_port_of_another_program_is_no_success() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let us = (std::process::id(), geteuid().as_raw());
        assert_eq!(check_of_tcp(address, Some(Some(us))).result, Sign::Good);
        assert_eq!(check_of_tcp(address, Some(Some((1, us.1)))).result, Sign::Bad);
        let check = format!("{:?}", check_of_tcp(address, None));
        assert!(check.contains(&format!("process {} (", us.0)) && check.contains("stop it, or"), "{check}");
    }
}
