//! Ids by where a process runs.

use std::fs;
use std::os::unix::fs::symlink;

use super::fixture::{Fake, Fixture};
use crate::model::InstanceInfo;
use crate::sources::Source;

const POD: &str = "0a1b2c3d-1111-4222-8333-444455556666";

/// Adds the working directory and the control group.
fn put(host: &Fixture, fake: &Fake, cwd: &str, cgroup: &str) {
    host.put(fake);
    let process = host.process(fake.pid);
    symlink(cwd, process.join("cwd")).unwrap();
    fs::write(process.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
}

fn ids(host: &Fixture) -> Vec<(String, String)> {
    let vms = host.scan().list().unwrap().instances;
    vms.into_iter().map(|InstanceInfo { id, name, .. }| (id, name)).collect()
}

fn cloud_hypervisor(pid: u32, args: &'static str) -> Fake {
    Fake { pid, start: pid.into(), exe: "/usr/bin/cloud-hypervisor", args, ..Fake::QEMU }
}

#[test]
fn relative_sockets_are_named_by_their_directory() {
    let host = Fixture::new();
    for (pid, cwd) in [(100, "/srv/a"), (200, "/srv/b")] {
        put(&host, &cloud_hypervisor(pid, "cloud-hypervisor --api-socket ch.sock"), cwd, "/");
    }
    assert_eq!(ids(&host), ["a", "b"].map(|id| (id.to_owned(), id.to_owned())));
}

#[test]
fn a_common_socket_takes_the_pods_name() {
    let host = Fixture::new();
    let args = "cloud-hypervisor --api-socket=/var/run/virtink/ch.sock";
    let other = POD.replace('0', "f");
    for (pid, pod) in [(100, POD), (200, &other)] {
        put(&host, &cloud_hypervisor(pid, args), "/", &format!("/kubepods/pod{pod}/x"));
    }
    let expected = [POD, &other].map(|pod| (pod.to_owned(), pod.to_owned()));
    assert_eq!(ids(&host), expected);
}

/// Each of two VMs of one id has other fingerprints than the other, and the same ones the next time.
#[test]
fn twins_have_fingerprints_of_their_own() {
    let host = Fixture::new();
    let qemu = |pid, args| Fake { pid, args, ..Fake::QEMU };
    put(&host, &qemu(100, "qemu-system-x86_64 -name web"), "/srv/a", "/");
    put(&host, &qemu(200, "qemu-system-x86_64 -name web"), "/srv/b", "/");
    put(&host, &qemu(300, "qemu-system-x86_64 -name web"), "/srv/a", "/machine.slice/web.scope");
    put(&host, &qemu(400, "qemu-system-x86_64 -name web"), "/srv/a", "/");
    let processes = host.scan().list().unwrap().processes;
    let fingerprints = |pid: u32| processes[&pid].fingerprints;
    let [a, b, c, again] = [100, 200, 300, 400].map(fingerprints);
    assert_eq!(a, again);
    assert!(a != b && a != c && b != c);
}

/// Whether the second VM, which starts when the first has ended, is the same as the first.
fn is_same(first: (&'static str, &str, &str), second: (&'static str, &str, &str)) -> bool {
    let [first, second] = [first, second].map(|(args, cwd, root)| {
        let host = Fixture::new();
        let exe =
            if args.starts_with("qemu") { "/usr/bin/qemu-system-x86_64" } else { "/usr/bin/firecracker" };
        put(&host, &Fake { exe, args, ..Fake::QEMU }, cwd, "/");
        let mounts = format!("1 2 8:1 / /proc rw - proc proc rw\n5 1 8:1 {root} / rw - ext4 /dev/sda1 rw\n");
        fs::write(host.process(100).join("mountinfo"), mounts).unwrap();
        let processes = host.scan().list().unwrap().processes;
        processes[&100].fingerprints.numbers()[0]
    });
    first == second
}

#[test]
fn a_firecracker_id_is_unique_in_its_jail() {
    let (a, b) =
        ("firecracker --id web --api-sock /run/a.sock", "firecracker --id web --api-sock /run/b.sock");
    assert!(is_same((a, "/", "/"), (a, "/srv", "/")));
    assert!(!is_same((a, "/", "/"), (b, "/", "/")));
    let jailed = "firecracker --id web";
    let [one, other] = ["/srv/a/firecracker/web/root", "/srv/b/firecracker/web/root"];
    assert!(is_same((jailed, "/", one), (jailed, "/", one)));
    assert!(!is_same((jailed, "/", one), (jailed, "/", other)));
    // The root of the host, as its last update has called it.
    assert!(is_same((jailed, "/", "/ostree/deploy/1"), (jailed, "/", "/ostree/deploy/2")));
    let (a, b) = ("qemu-system-x86_64 -id 121 -pidfile /a", "qemu-system-x86_64 -id 121 -pidfile /b");
    assert!(is_same((a, "/", "/"), (b, "/", "/")), "a manager's number is one VM");
}

#[test]
fn what_changes_at_each_start_is_no_place() {
    for (first, second) in [
        (
            "/var/lib/libvirt/qemu/domain-2-dom/monitor.sock",
            "/var/lib/libvirt/qemu/domain-13-dom/monitor.sock",
        ),
        ("/tmp/tmp.bbbbXX1234/qmp", "/tmp/tmp.9sK2LmQw0Z/qmp"),
        ("/tmp/tmp6_x0abcd/qmp", "/tmp/tmpq1w2e3r4/qmp"),
        ("/tmp/.tmpAb12Cd/qmp", "/tmp/.tmpEf34Gh/qmp"),
        ("/tmp/.firecracker.sock-812-42", "/tmp/.firecracker.sock-9123-7"),
    ] {
        let args = |path| -> &'static str { format!("qemu-system-x86_64 -name web -qmp unix:{path}").leak() };
        let (first, second) = (args(first), args(second));
        assert!(is_same((first, "/srv", "/"), (second, "/srv", "/")), "{first}, {second}");
        if !first.contains("domain-") {
            assert!(!is_same((first, "/srv", "/"), (second, "/home", "/")), "{first}: where it was started");
        }
    }
    let args = [
        "qemu-system-x86_64 -name web -pidfile /run/tmpfiles/a",
        "qemu-system-x86_64 -name web -pidfile /run/temp/a",
    ];
    assert!(!is_same((args[0], "/", "/"), (args[1], "/", "/")));
}
