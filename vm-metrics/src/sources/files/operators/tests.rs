//! Tests of the authors of files.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::*;
use crate::sources::proc_scan::fixture::{Fake, Fixture};

/// A directory of a user who is no operator, and operators. Only root can give a directory away; any other test run is
/// that user itself.
fn jail() -> (Fixture, Operators, u32) {
    let (fixture, mut operators, me) = (Fixture::new(), Operators::default(), geteuid().as_raw());
    fs::create_dir_all(fixture.path("jail/run")).unwrap();
    let stranger = if me == 0 { 1000 } else { me };
    for path in ["jail", "jail/run"] {
        chown(fixture.path(path), Some(stranger), None).unwrap();
    }
    operators.daemon = if me == 0 { 0 } else { me + 1 };
    (fixture, operators, stranger)
}

fn put(fixture: &Fixture, pid: u32, uid: u32, root: &Path) {
    put_program(fixture, pid, uid, root, "/usr/bin/qemu-system-x86_64");
}

fn put_program(fixture: &Fixture, pid: u32, uid: u32, root: &Path, exe: &'static str) {
    fixture.put(&Fake { pid, exe, ..Fake::QEMU });
    fixture.set_user(pid, uid);
    symlink(root, fixture.process(pid).join("root")).unwrap();
}

fn may_name(fixture: &Fixture, authors: &Authors, pid: u32) -> bool {
    authors.may_name(&fixture.context().processes, pid).is_ok()
}

#[test]
fn an_operators_file_may_name_any_process() {
    let (fixture, operators) = (Fixture::new(), Operators::default());
    let path = fixture.path("vm.pid");
    fs::write(&path, "7").unwrap();
    symlink(&path, fixture.path("link.pid")).unwrap();
    put(&fixture, 7, 4242, Path::new("/"));
    for path in [&path, &fixture.path("link.pid"), &fixture.path("proc/../vm.pid")] {
        let (_, authors) = operators.open(path).unwrap();
        assert!(may_name(&fixture, &authors, 7), "{authors:?}");
    }
    assert_eq!(operators.read(&path, 10).unwrap(), b"7");
    for mode in [0o666, 0o646] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let problem = operators.read(&path, 10).unwrap_err().to_string();
        assert!(problem.contains("other users can change it, so it does not count"), "{problem}");
        assert!(!may_name(&fixture, &operators.open(&path).unwrap().1, 7));
    }
}

#[test]
fn a_file_in_a_jail_names_its_hypervisor() {
    let (fixture, operators, stranger) = jail();
    let path = fixture.path("jail/run/vm.pid");
    fs::write(&path, "7").unwrap();
    let (jail, other_jail) = (fixture.path("jail"), fixture.path("other"));
    fs::create_dir(&other_jail).unwrap();
    for (pid, uid, root) in [
        (1, stranger, jail.as_path()),
        (2, stranger, Path::new("/")),
        (3, stranger, &other_jail),
        (4, stranger + 1, &jail),
        (5, 0, Path::new("/")),
    ] {
        put(&fixture, pid, uid, root);
    }
    let (_, authors) = operators.open(&path).unwrap();
    let named: Vec<u32> = (1..=6).filter(|pid| may_name(&fixture, &authors, *pid)).collect();
    assert_eq!(named, [1, 2]);
    put_program(&fixture, 1, stranger, &jail, "/bin/sleep");
    assert!(!may_name(&fixture, &authors, 1), "no hypervisor");
    let problem = operators.read(&path, 10).unwrap_err().to_string();
    assert!(problem.contains(&format!("user {stranger} can change it")), "{problem}");
}

#[test]
fn a_link_of_a_stranger_is_not_followed() {
    let (fixture, operators, stranger) = jail();
    let link = fixture.path("jail/vm.pid");
    symlink("/etc/passwd", &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(stranger), None).unwrap();
    let problem = operators.open(&link).unwrap_err().to_string();
    assert_eq!(problem, format!("a link of user {stranger} is on the way, name the file itself"));
}

#[test]
fn trusted_users_are_operators() {
    let (fixture, _, stranger) = jail();
    fs::write(fixture.path("jail/vm.json"), "{}").unwrap();
    let operators = Operators { trust: Trust::only([stranger]), ..Operators::default() };
    assert_eq!(operators.read(&fixture.path("jail/vm.json"), 10).unwrap(), b"{}");
    operators.check_directory(&fixture.path("jail")).unwrap();
    fs::set_permissions(fixture.path("jail"), Permissions::from_mode(0o1777)).unwrap();
    operators.check_directory(&fixture.path("jail")).unwrap_err();
}
