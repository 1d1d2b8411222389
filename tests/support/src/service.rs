//! Runs the daemon as the unit does: unprivileged, with capabilities.
//!
//! The unit is `deploy/systemd/vm-metrics.service`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, mount, mount_bind};

const UNIT: &str = include_str!("../../../deploy/systemd/vm-metrics.service");

/// The uid of the service's user in the tests.
pub const UID: u32 = 64_900;

/// The path of the host's bpffs.
const BPF_FS: &str = "/sys/fs/bpf";

const RUN: &str = "/run";

/// Returns the values of a key of the unit.
pub fn settings(key: &str) -> impl Iterator<Item = &'static str> {
    UNIT.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='))
}

/// Returns the capabilities of the unit in `setpriv`'s form: `+net_admin`.
pub fn capabilities() -> Vec<String> {
    let names = settings("AmbientCapabilities").flat_map(|line| line.split(' '));
    names.map(|name| name.replace("CAP_", "+").to_lowercase()).collect()
}

/// Makes a command that runs a program as the service's user with these capabilities. It ends with the thread that
/// starts it.
pub fn command(program: &Path, capabilities: &[String]) -> Command {
    let (user, capabilities) = (UID.to_string(), capabilities.join(","));
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--pdeathsig", "KILL"]);
    command.args(["--inh-caps", &capabilities, "--ambient-caps", &capabilities]);
    command.arg(program);
    command
}

/// Prepares this mount namespace like a systemd host: a bpffs for root alone, the service's user and its directory.
pub fn prepare_host() -> Result<()> {
    mount_bpffs(Path::new(BPF_FS))?;
    fs::create_dir_all(RUN).context("make /run")?;
    mount("tmpfs", RUN, "tmpfs", MountFlags::empty(), Some(c"mode=0755")).context("mount a tmpfs on /run")?;
    let user = settings("User").next().context("the unit has no user")?;
    add_line("/etc/passwd", &format!("{user}:x:{UID}:{UID}::/nonexistent:/usr/sbin/nologin"))?;
    add_line("/etc/group", &format!("{user}:x:{UID}:"))?;
    for name in settings("RuntimeDirectory") {
        let directory = Path::new(RUN).join(name);
        fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
        give_to_service(&directory)?;
    }
    Ok(())
}

/// Mounts a bpffs as systemd does.
pub fn mount_bpffs(path: &Path) -> Result<()> {
    let mounted = mount("bpf", path, "bpf", MountFlags::empty(), Some(c"mode=0700"));
    mounted.with_context(|| format!("mount a bpffs on {}", path.display()))
}

/// Makes the service's user the owner of a file.
pub fn give_to_service(path: &Path) -> Result<()> {
    chown(path, Some(UID), Some(UID)).with_context(|| format!("chown {}", path.display()))
}

/// Runs the unit's commands before a start, as root.
pub fn before_start() -> Result<()> {
    for line in settings("ExecStartPre") {
        let words = line.trim_start_matches(['-', '+']).split(' ');
        // A guest has its programs in other directories.
        let words: Vec<&str> = words.map(|word| word.strip_prefix("/usr/bin/").unwrap_or(word)).collect();
        let status = Command::new(words[0]).args(&words[1..]).status().with_context(|| line.to_owned())?;
        ensure!(status.success(), "{line}: {status}");
    }
    Ok(())
}

/// Adds a line to a file for this mount namespace only.
fn add_line(file: &str, line: &str) -> Result<()> {
    let new = PathBuf::from(RUN).join(file.replace('/', "-"));
    let text = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    fs::write(&new, format!("{}\n{line}\n", text.trim_end()))
        .with_context(|| format!("write {}", new.display()))?;
    fs::set_permissions(&new, Permissions::from_mode(0o644)).context("chmod")?;
    mount_bind(&new, file).with_context(|| format!("mount on {file}"))
}
