//! Ids by where a process runs.

use std::fs;
use std::os::unix::fs::symlink;

use super::fixture::{Fake, Fixture};
use crate::model::InstanceInfo;
use crate::sources::InstanceSource;

const POD: &str = "0a1b2c3d-1111-4222-8333-444455556666";

/// Adds the working directory and the control group.
fn put(host: &Fixture, fake: &Fake, cwd: &str, cgroup: &str) {
    host.put(fake);
    let process = host.process(fake.pid);
    symlink(cwd, process.join("cwd")).unwrap();
    fs::write(process.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
}

fn ids(host: &Fixture) -> Vec<(String, String)> {
    let vms = host.scan().list_running_instances_for_metrics().unwrap().instances;
    vms.into_iter().map(|InstanceInfo { id, name, .. }| (id, name)).collect()
}

fn cloud_hypervisor(pid: u32, args: &'static str) -> Fake {
    Fake { pid, start: pid.into(), exe: "/usr/bin/cloud-hypervisor", args, ..Fake::default() }
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
fn a_common_socket_in_a_pod_is_the_pod() {
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
    let qemu = |pid, args| Fake { pid, args, ..Fake::default() };
    put(&host, &qemu(100, "qemu-system-x86_64 -name web"), "/srv/a", "/");
    put(&host, &qemu(200, "qemu-system-x86_64 -name web"), "/srv/b", "/");
    put(&host, &qemu(300, "qemu-system-x86_64 -name web"), "/srv/a", "/machine.slice/web.scope");
    put(&host, &qemu(400, "qemu-system-x86_64 -name web"), "/srv/a", "/");
    let processes = host.scan().list_running_instances_for_metrics().unwrap().processes;
    let fingerprints = |pid: u32| processes[&pid].fingerprints;
    let [a, b, c, again] = [100, 200, 300, 400].map(fingerprints);
    assert_eq!(a, again);
    assert!(a != b && a != c && b != c);
}
