//! Directories and files that other users could change are refused.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};

use rustix::fs::{CWD, FileType, mknodat};
use rustix::process::geteuid;
use tempfile::TempDir;
use vm_metrics_testkit::skip::{skip, skip_part};

use super::*;

const STRANGER: u32 = 65_534;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// A directory of the test, and the refusals of paths below it.
struct Lab(TempDir);

impl Lab {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn dir(&self, below: &str) -> PathBuf {
        let path = self.path(below);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn refused(&self, below: &str) -> DirError {
        OwnDir::make(&self.path(below), PRIVATE).unwrap_err()
    }
}

#[test]
fn a_missing_directory_is_made_private() {
    let lab = Lab::new();
    let absent = OwnDir::open(&lab.path("a/b")).unwrap_err();
    assert_eq!(absent.to_string(), format!("{} is not there", lab.path("a").display()));
    OwnDir::make(&lab.path("a/b"), PRIVATE).unwrap();
    assert_eq!((mode(&lab.path("a")) & 0o022, mode(&lab.path("a/b"))), (0, 0o700));
    OwnDir::open(&lab.path("a/../a/./b")).unwrap();
}

#[test]
fn directories_that_others_may_write_are_refused() {
    let lab = Lab::new();
    set_mode(&lab.dir("open"), 0o777);
    let error = lab.refused("open/state").to_string();
    assert!(error.contains("/open has mode 0777, so others may write to it: chmod go-w"), "{error}");
    assert!(!lab.path("open/state").exists());
    set_mode(&lab.dir("group"), 0o770);
    assert!(matches!(lab.refused("group"), DirError::Writable { mode: 0o770, .. }));
    // In a sticky one others cannot replace our files, but could make files before us.
    set_mode(&lab.dir("sticky"), 0o1777);
    OwnDir::make(&lab.path("sticky/state"), PRIVATE).unwrap();
    assert!(matches!(lab.refused("sticky"), DirError::Writable { mode: 0o1777, .. }));
}

#[test]
fn shared_directories_have_no_chmod_as_remedy() {
    let lab = Lab::new();
    set_mode(&lab.dir("sticky"), 0o1777);
    let of_root = DirError::Writable { path: "/run".into(), mode: 0o777 };
    for error in [lab.refused("sticky"), of_root].map(|error| error.to_string()) {
        assert!(!error.contains("chmod") && error.contains("such as /run/vm-metrics"), "{error}");
    }
}

#[test]
fn directories_of_other_users_are_refused() {
    if !geteuid().is_root() {
        return skip("only root can give a directory away");
    }
    let lab = Lab::new();
    chown(lab.dir("theirs"), Some(STRANGER), None).unwrap();
    let error = lab.refused("theirs");
    assert!(error.is_interference());
    let problem = "/theirs belongs to user 65534, so only a daemon of that user may use it";
    assert!(error.to_string().contains(problem), "{error}");
    assert!(matches!(lab.refused("theirs/below"), DirError::Owner { owner: STRANGER, .. }));
    assert!(!lab.path("theirs/below").exists());
}

#[test]
fn only_links_of_root_and_ours_are_followed() {
    let lab = Lab::new();
    lab.dir("real/inner");
    symlink("real", lab.path("relative")).unwrap();
    symlink(lab.path("relative/inner"), lab.path("absolute")).unwrap();
    OwnDir::make(&lab.path("absolute/../state"), PRIVATE).unwrap();
    assert!(lab.path("real/state").is_dir());
    symlink("loop", lab.path("loop")).unwrap();
    assert!(matches!(lab.refused("loop"), DirError::Links { .. }));
    // Nothing is made where a link leads nowhere, but below it.
    symlink("nowhere", lab.path("dangling")).unwrap();
    OwnDir::open(&lab.path("dangling")).unwrap_err();
    if !geteuid().is_root() {
        return skip_part("links of another user", "only root can give a link away");
    }
    lchown(lab.path("relative"), Some(STRANGER), None).unwrap();
    for below in ["relative", "relative/state", "absolute"] {
        let error = lab.refused(below);
        assert!(matches!(error, DirError::Link { owner: STRANGER, .. }), "{below}: {error}");
        assert!(error.to_string().contains("/relative is a link that user 65534 made"), "{error}");
    }
}

#[test]
fn a_file_in_the_way_is_no_directory() {
    let lab = Lab::new();
    fs::write(lab.path("file"), "").unwrap();
    for below in ["file", "file/state"] {
        assert!(matches!(lab.refused(below), DirError::NotDirectory { .. }), "{below}");
    }
}

#[test]
fn a_replaced_file_is_whole_and_private() {
    let lab = Lab::new();
    let dir = OwnDir::make(&lab.path("state"), PRIVATE).unwrap();
    assert_eq!(dir.read("a.json", 9).unwrap(), None);
    // As an older version has left it.
    fs::write(lab.path("state/a.json"), "old").unwrap();
    set_mode(&lab.path("state/a.json"), 0o644);
    assert_eq!(dir.read("a.json", 9).unwrap().unwrap(), b"old");
    let victim = lab.path("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, lab.path("state/.a.json.new")).unwrap();
    dir.replace("a.json", b"new").unwrap();
    assert_eq!(dir.read("a.json", 3).unwrap().unwrap(), b"new");
    assert!(matches!(dir.read("a.json", 2), Err(DirError::TooLong { limit: 2, .. })));
    assert_eq!(mode(&lab.path("state/a.json")), 0o600);
    assert_eq!(fs::read(victim).unwrap(), b"precious");
    assert_eq!(fs::read_dir(lab.path("state")).unwrap().count(), 1);
    assert_eq!([dir.unlink("a.json").unwrap(), dir.unlink("a.json").unwrap()], [true, false]);
}

#[test]
fn only_regular_files_are_read_or_replaced() {
    let lab = Lab::new();
    let dir = OwnDir::make(&lab.path("state"), PRIVATE).unwrap();
    mknodat(CWD, lab.path("state/fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    fs::write(lab.path("victim"), "precious").unwrap();
    symlink(lab.path("victim"), lab.path("state/link")).unwrap();
    lab.dir("state/dir");
    fs::write(lab.path("state/open"), "").unwrap();
    set_mode(&lab.path("state/open"), 0o666);
    for (name, problem) in [
        ("fifo", "is a FIFO, and no regular file: remove it"),
        ("link", "is a link, and no regular file"),
        ("dir", "is a directory, and no regular file"),
        ("open", "has mode 0666, so others may write to it"),
    ] {
        for error in [dir.read(name, 9).unwrap_err(), dir.replace(name, b"x").unwrap_err()] {
            assert!(error.to_string().contains(problem) && error.is_interference(), "{name}: {error}");
        }
    }
    assert_eq!(fs::read(lab.path("victim")).unwrap(), b"precious");
}

#[test]
fn a_file_of_another_user_is_refused() {
    if !geteuid().is_root() {
        return skip("only root can give a file away");
    }
    let lab = Lab::new();
    let dir = OwnDir::make(&lab.path("state"), PRIVATE).unwrap();
    fs::write(lab.path("state/a"), "x").unwrap();
    chown(lab.path("state/a"), Some(STRANGER), None).unwrap();
    assert!(matches!(dir.read("a", 9), Err(DirError::Owner { owner: STRANGER, .. })));
    assert!(matches!(dir.replace("a", b""), Err(DirError::Owner { .. })));
}
