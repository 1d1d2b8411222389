//! Fixture hosts: fake processes in a temporary directory.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use tempfile::TempDir;

use super::super::ProcScan;
use crate::host::Host;
use crate::model::Trust;
use crate::sources::SourceContext;

/// A host in a temporary directory.
pub struct Fixture {
    dir: TempDir,
}

/// A process to be put on it.
pub struct Fake {
    pub pid: u32,
    pub exe: &'static str,
    pub args: &'static str,
    pub start: u64,
    pub state: char,
    pub ppid: u32,
    pub session: u32,
    pub uid: u32,
    /// Descriptors of `/dev/net/tun`, with the `iff:` of each.
    pub taps: &'static [(u32, &'static str)],
}

impl Fake {
    pub const QEMU: Self = Self {
        pid: 100,
        exe: "/usr/bin/qemu-system-x86_64",
        args: "qemu-system-x86_64 -name web",
        start: 5000,
        state: 'S',
        ppid: 1,
        session: 0,
        uid: 0,
        taps: &[],
    };
}

impl Fixture {
    pub fn new() -> Self {
        let fixture = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(fixture.host().net_devices()).unwrap();
        fs::create_dir(fixture.host().proc()).unwrap();
        // Entries of /proc that are no process.
        fs::write(fixture.host().proc().join("uptime"), "1 1\n").unwrap();
        fs::create_dir(fixture.host().proc().join("sys")).unwrap();
        fixture
    }

    pub fn with(processes: &[Fake]) -> Self {
        let fixture = Self::new();
        for process in processes {
            fixture.put(process);
        }
        fixture
    }

    pub fn host(&self) -> Host {
        Host::new(self.dir.path().join("proc"), self.dir.path().join("sys"))
    }

    /// A TAP that somebody holds, or nobody.
    pub fn tap(&self, name: &str, is_held: bool) {
        let device = self.host().net_device(name);
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("tun_flags"), "0x1002\n").unwrap();
        fs::write(device.join("carrier"), if is_held { "1\n" } else { "0\n" }).unwrap();
    }

    /// For sources on this host.
    pub fn context(&self) -> SourceContext {
        self.context_trusting(Trust::default())
    }

    pub fn context_trusting(&self, trust: Trust) -> SourceContext {
        SourceContext::new(self.host(), trust, Duration::ZERO)
    }

    pub fn scan(&self) -> ProcScan {
        ProcScan::new(&self.context())
    }

    /// A path outside of /proc.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub fn process(&self, pid: u32) -> PathBuf {
        self.host().process(pid)
    }

    /// Replaces what was there under this pid.
    pub fn put(&self, fake: &Fake) {
        let Fake { pid, state, ppid, session, start, .. } = fake;
        let dir = self.process(*pid);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("fd")).unwrap();
        fs::create_dir_all(dir.join("fdinfo")).unwrap();
        chown(&dir, Some(fake.uid), None).unwrap();
        if !fake.exe.is_empty() {
            symlink(fake.exe, dir.join("exe")).unwrap();
        }
        let cmdline: String = fake.args.split_whitespace().flat_map(|arg| [arg, "\0"]).collect();
        fs::write(dir.join("cmdline"), cmdline).unwrap();
        self.set_user(*pid, fake.uid);
        let stat = format!(
            "{pid} (a ) b) {state} {ppid} {pid} {session} 0 -1 0 1 2 3 4 10 20 0 0 20 0 1 0 {start} 1 2\n"
        );
        fs::write(dir.join("stat"), stat).unwrap();
        self.descriptor(*pid, 0, "/dev/null", None);
        for (descriptor, name) in fake.taps {
            self.descriptor(*pid, *descriptor, "/dev/net/tun", Some(name));
        }
    }

    /// The kernel says that this user runs it. Only root can make processes of others by [`put`](Self::put).
    pub fn set_user(&self, pid: u32, uid: u32) {
        let ids = format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\nGid:\t{uid}\t{uid}\t{uid}\t{uid}\n");
        fs::write(self.process(pid).join("status"), ids).unwrap();
    }

    pub fn descriptor(&self, pid: u32, descriptor: u32, target: &str, iff: Option<&str>) {
        let dir = self.process(pid);
        let link = dir.join("fd").join(descriptor.to_string());
        let _ = fs::remove_file(&link);
        symlink(target, link).unwrap();
        let iff = iff.map(|name| format!("iff:\t{name}\n")).unwrap_or_default();
        let fdinfo = format!("pos:\t0\nflags:\t02\nmnt_id:\t25\nino:\t85\n{iff}");
        fs::write(dir.join("fdinfo").join(descriptor.to_string()), fdinfo).unwrap();
    }

    /// Who has no capabilities may not look at its descriptors.
    pub fn hide_descriptors(&self, pid: u32) {
        fs::set_permissions(self.process(pid).join("fd"), Permissions::from_mode(0o000)).unwrap();
    }

    pub fn end(&self, pid: u32) {
        fs::remove_dir_all(self.process(pid)).unwrap();
    }

    pub fn add_device(&self, name: &str) {
        fs::create_dir(self.host().net_devices().join(name)).unwrap();
    }

    /// Reading it fails from now on, and not because it is gone (permissions do not bind root).
    pub fn break_file(&self, file: &Path) {
        if file.is_dir() {
            fs::remove_dir_all(file).unwrap();
            fs::write(file, "no directory").unwrap();
        } else {
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
        }
    }
}

/// Permissions bind root, too, when it has no capabilities. They belong to the thread.
pub fn without_capabilities<T: Send>(action: impl FnOnce() -> T + Send) -> T {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    let thread = || {
        set_capabilities(None, none).unwrap();
        action()
    };
    std::thread::scope(|scope| scope.spawn(thread).join().unwrap())
}
