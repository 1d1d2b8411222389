//! A real systemd in namespaces, on a copy of this machine's files.
//!
//! Its programs see this machine's root directory below a tmpfs, so their files end with the value. Kernel settings
//! (`/proc/sys`) are read-only, because most of them belong to the whole machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::child::ChildProcess;
use crate::packages::ensure_debian;
use crate::wait::{SOON, wait_until};

/// Prepares the root. `$1` is an empty directory, `$2` the cgroup, and the rest are directories that may be separate
/// file systems.
const PREPARE: &str = r#"
base=$1 cgroup=$2; shift 2
mount --make-rprivate /
mount -t tmpfs tmpfs "$base"
mkdir "$base/upper" "$base/work" "$base/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$base/root"
for directory; do mkdir -p "$base/root$directory"; mount --bind "$directory" "$base/root$directory"; done
echo $$ > "$cgroup/cgroup.procs"
exec unshare --pid --net --uts --ipc --cgroup --fork --kill-child sh -euc "$BOOT" boot "$base/root"
"#;

/// Boots it. `$1` is the new root directory. `/tmp` stays, because it may hold the sources.
const BOOT: &str = r#"
cd "$1"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf -o mode=0700 bpf sys/fs/bpf
mount -t tmpfs -o mode=0755 tmpfs run
mount -t tmpfs -o mode=0755 tmpfs dev
(cd /dev && cp --archive --parents full null random tty urandom zero net/tun "$1/dev")
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
: > etc/fstab
mkdir -p etc/tmpfiles.d
: > etc/tmpfiles.d/tmp.conf
mkdir -p former
pivot_root . former
umount -l /former
cd /
ip link set lo up
container=namespaces exec /lib/systemd/systemd --unit=basic.target
"#;

/// A drop ends everything in it.
#[derive(Debug)]
pub struct Systemd {
    init: u32,
    process: ChildProcess,
    // Drops after the processes in it.
    _cgroup: Cgroup,
    _base: TempDir,
}

impl Systemd {
    /// Boots it with these directories of the machine.
    pub fn boot(directories: &[&Path]) -> Result<Self> {
        ensure_debian(&["iproute2", "systemd"])?;
        let cgroup = Cgroup::make()?;
        let base = tempfile::tempdir().context("make a directory for systemd")?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-euc", PREPARE, "prepare"]).arg(base.path()).arg(&cgroup.path);
        command.args(directories).env("BOOT", BOOT);
        let mut process = ChildProcess::spawn("systemd", &mut command)?;
        let init = wait_until(SOON, "systemd", || {
            process.check_running()?;
            Ok(systemd_below(process.pid()))
        })?;
        let systemd = Self { init, process, _cgroup: cgroup, _base: base };
        wait_until(SOON, "the end of systemd's start", || {
            let state = systemd.shell("systemctl is-system-running")?;
            Ok(matches!(state.stdout.trim_ascii_end(), b"running" | b"degraded").then_some(()))
        })?;
        Ok(systemd)
    }

    /// Returns the pid of its first process on this machine.
    pub fn pid(&self) -> u32 {
        self.init
    }

    /// Runs a shell line in it, as root.
    pub fn shell(&self, line: &str) -> Result<Output> {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--all", "--wd=/", "--target", &self.init.to_string(), "sh", "-ec", line]);
        nsenter.output().with_context(|| format!("run {line:?}"))
    }

    /// Returns the output of a shell line that must succeed.
    pub fn must(&self, line: &str) -> Result<String> {
        let output = self.shell(line)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{line}: {}\n{text}{errors}{}", output.status, self.process.log());
        Ok(text)
    }
}

/// Returns the process that became systemd, if any.
fn systemd_below(unshare: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).ok()?;
    let init = children.trim().parse().ok()?;
    let name = fs::read_to_string(format!("/proc/{init}/comm")).ok()?;
    (name.trim() == "systemd").then_some(init)
}

/// A cgroup that serves systemd as its root. A drop removes it with those in it.
#[derive(Debug)]
struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    fn make() -> Result<Self> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = cgroup2()?.join(format!("vm-metrics-systemd-{}-{number}", process::id()));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Killed processes stay in it for a moment.
        let removed = wait_until(SOON, "the end of all processes of systemd", || {
            Ok(remove_tree(&self.path).is_ok().then_some(()))
        });
        if let Err(error) = removed {
            eprintln!("remove {}: {error:#}", self.path.display());
        }
    }
}

/// Removes cgroups from the leaves up; the kernel owns the files in them.
fn remove_tree(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    Ok(fs::remove_dir(directory)?)
}

/// Returns the mount point of cgroup v2.
fn cgroup2() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = mounts.find(|mount| mount.get(2) == Some(&"cgroup2"));
    Ok(PathBuf::from(mount.context("no cgroup2 is mounted")?[1]))
}
