//! Tests of paths that processes name.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use rustix::process::getuid;

use super::*;
use crate::model::Trust;
use crate::sources::proc_scan::fixture::{Fake, Fixture};

const PID: u32 = 7;

/// A process with a root and a working directory of its own.
struct Jail {
    fixture: Fixture,
}

impl Jail {
    /// Of this user, who has no group in common with anybody.
    fn of(uid: u32) -> Self {
        let fixture = Fixture::with(&[Fake { pid: PID, ..Fake::QEMU }]);
        fixture.set_user(PID, uid);
        let jail = Self { fixture };
        fs::create_dir_all(jail.path("home/vm")).unwrap();
        symlink("root/home/vm", jail.fixture.process(PID).join("cwd")).unwrap();
        fs::write(jail.fixture.path("outside"), "secret").unwrap();
        jail.put("home/vm/file", "inside", 0o644);
        jail
    }

    fn path(&self, path: &str) -> PathBuf {
        self.fixture.process(PID).join("root").join(path)
    }

    fn put(&self, path: &str, content: &str, mode: u32) {
        fs::write(self.path(path), content).unwrap();
        self.chmod(path, mode);
    }

    fn chmod(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn named(&self, path: impl Into<PathBuf>) -> ProcessPath {
        ProcessPath { host: self.fixture.host(), pid: PID, start_ticks: 5000, path: path.into() }
    }

    fn read(&self, path: &str) -> Option<String> {
        read(self.named(path)).ok()
    }
}

fn permit() -> Permit {
    Workers::default().try_permit(None).unwrap()
}

fn read(file: ProcessPath) -> io::Result<String> {
    read_with(permit(), file, 100)
}

fn read_with(permit: Permit, file: ProcessPath, limit: u64) -> io::Result<String> {
    let (sender, content) = mpsc::channel();
    permit.read(file, limit, move |content| sender.send(content).unwrap()).unwrap();
    content.recv().unwrap().map(|content| String::from_utf8(content).unwrap())
}

fn connected(socket: ProcessPath) -> io::Result<UnixStream> {
    let (sender, stream) = mpsc::channel();
    permit().connect(socket, move |stream| sender.send(stream).unwrap()).unwrap();
    stream.recv().unwrap()
}

fn me() -> u32 {
    getuid().as_raw()
}

#[test]
fn a_path_stays_inside_the_root() {
    let jail = Jail::of(me());
    let outside = jail.fixture.path("outside");
    symlink(&outside, jail.path("absolute")).unwrap();
    symlink("../../../outside", jail.path("upwards")).unwrap();
    symlink("/home/vm/file", jail.path("home/vm/link")).unwrap();
    symlink("../../../../../outside", jail.path("home/vm/out")).unwrap();
    for path in ["/absolute", "/upwards", "out", "../../absolute", "../../../../../outside"] {
        assert_eq!(jail.read(path), None, "{path}");
    }
    assert_eq!(jail.read(outside.to_str().unwrap()), None);
    for path in [
        "/home/vm/file",
        "/../home//vm/./file",
        "/home/vm/link",
        "file",
        "./link",
        "../vm/file",
        "../../../../home/vm/file",
    ] {
        assert_eq!(jail.read(path), Some("inside".to_owned()), "{path}");
    }
}

#[test]
fn a_working_directory_outside_is_not_left_upwards() {
    let jail = Jail::of(me());
    let elsewhere = jail.fixture.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("file"), "its own").unwrap();
    let cwd = jail.fixture.process(PID).join("cwd");
    fs::remove_file(&cwd).unwrap();
    symlink(&elsewhere, cwd).unwrap();
    assert_eq!(jail.read("file"), Some("its own".to_owned()));
    assert_eq!(jail.read("../outside"), None);
}

#[test]
fn only_plain_files_are_read() {
    let jail = Jail::of(me());
    for path in ["/home", "/home/vm/file/..", "/home/vm/file/x", "", "/"] {
        assert_eq!(jail.read(path), None, "{path}");
    }
    jail.put("large", &"x".repeat(101), 0o644);
    assert_eq!(jail.read("/large"), None);
    let deep = "x/../".repeat(1000);
    assert_eq!(jail.read(&deep), None);
    symlink("/loop", jail.path("loop")).unwrap();
    assert_eq!(jail.read("/loop"), None);
}

#[test]
fn links_of_procfs_are_not_followed() {
    let me = std::process::id();
    let host = Host::default();
    let start_ticks = ProcessDir::new(&host, me).stat().unwrap().start_ticks;
    let passwd = |path: &str| {
        let named = ProcessPath { host: host.clone(), pid: me, start_ticks, path: path.into() };
        read_with(permit(), named, 1 << 20).is_ok()
    };
    assert!(passwd("/etc/passwd"));
    assert!(!passwd(&format!("/proc/{me}/root/etc/passwd")));
    assert!(!passwd("/proc/self/cwd/Cargo.toml"));
}

/// By root the kernel checks, by an ordinary user the daemon itself.
#[test]
fn a_file_needs_the_rights_of_the_process() {
    let jail = Jail::of(me() + 1000);
    assert_eq!(jail.read("/home/vm/file"), Some("inside".to_owned()));
    jail.chmod("home/vm/file", 0o660);
    assert_eq!(jail.read("/home/vm/file"), None, "another's file");
    jail.chmod("home/vm/file", 0o644);
    jail.chmod("home", 0o770);
    assert_eq!(jail.read("/home/vm/file"), None, "another's directory");
    assert_eq!(jail.read("file"), Some("inside".to_owned()), "it is in there already");
    assert_eq!(jail.read("../vm/file"), None, "the way back is shut");
}

/// QEMU of Incus and LXD gives up root's rights once it has read a file that only root may read.
#[test]
fn a_trusted_process_names_files_of_operators() {
    let user = me() + 1000;
    let jail = Jail::of(user);
    let read = |trust: Trust, directory: u32, file: u32| {
        jail.chmod("home/vm", directory);
        jail.chmod("home/vm/file", file);
        let permit = Workers::new(trust.clone(), Operators::new(trust)).try_permit(Some(user)).unwrap();
        read_with(permit, jail.named("/home/vm/file"), 100).ok()
    };
    let trusted = || Trust::only([user]);
    assert_eq!(read(Trust::default(), 0o700, 0o600), None, "a stranger's word opens nothing");
    assert_eq!(read(trusted(), 0o700, 0o600), Some("inside".to_owned()));
    assert_eq!(read(trusted(), 0o707, 0o600), None, "others can replace it");
    assert_eq!(read(trusted(), 0o700, 0o602), None, "others can write it");
}

#[test]
fn a_link_that_another_planted_is_not_followed() {
    let jail = Jail::of(me() + 1000);
    fs::create_dir(jail.path("tmp")).unwrap();
    symlink("/home/vm/file", jail.path("tmp/planted")).unwrap();
    assert!(jail.read("/tmp/planted").is_some());
    // The directory's owner may.
    jail.chmod("tmp", 0o1777);
    assert!(jail.read("/tmp/planted").is_some());
}

#[test]
fn a_process_that_has_ended_names_nothing() {
    let jail = Jail::of(me());
    let other = ProcessPath { start_ticks: 5001, ..jail.named("/home/vm/file") };
    assert!(read(other).is_err());
    jail.fixture.end(PID);
    assert!(read(jail.named("/home/vm/file")).is_err());
}

#[test]
fn a_socket_has_the_user_of_its_process() {
    for (uid, expected) in [(me(), true), (me() + 1000, false)] {
        let jail = Jail::of(uid);
        let _listener = UnixListener::bind(jail.path("api.sock")).unwrap();
        jail.chmod("api.sock", 0o777);
        let is_roots = me() == 0;
        assert_eq!(connected(jail.named("/api.sock")).is_ok(), expected || is_roots, "{uid}");
        assert!(connected(jail.named("/home/vm/file")).is_err());
        if is_roots {
            chown(jail.path("api.sock"), Some(4242), None).unwrap();
            assert!(connected(jail.named("/api.sock")).is_err(), "{uid}: it belongs to neither");
        }
    }
}

#[test]
fn a_socket_is_answered_by_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // Its end comes with that of its input.
    let mut other = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let host = Host::default();
    let connect = |pid| {
        let start_ticks = ProcessDir::new(&host, pid).stat().unwrap().start_ticks;
        connected(ProcessPath { host: host.clone(), pid, start_ticks, path: path.clone() })
    };
    assert!(connect(std::process::id()).is_ok());
    let refused = connect(other.id()).unwrap_err().to_string();
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(refused, "another process listens there");
    let mut said = Vec::new();
    for _ in 0..2 {
        listener.accept().unwrap().0.read_to_end(&mut said).unwrap();
    }
    assert_eq!(said, b"", "nothing is written to a socket that is not known yet");
}

#[test]
fn strangers_have_few_threads_and_leave_others_theirs() {
    let workers = Workers::default();
    let take = |uid, most| (0..most).map_while(|_| workers.try_permit(Some(uid))).collect::<Vec<_>>();
    let of_one = take(1000, 100);
    assert_eq!(of_one.len(), 4);
    let of_many: Vec<_> = (1001..1100).flat_map(|uid| take(uid, 100)).collect();
    assert_eq!(of_many.len(), 12);
    assert_eq!(take(0, 100).len(), 16, "root has its own");
    drop(of_one);
    assert_eq!(take(2000, 100).len(), 4);
}
