use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::model::InstanceInfo;

const PID: u32 = 70;

/// A host with one process that runs this program.
fn host(dir: &Path, program: &str) -> Host {
    let host = Host::new(dir.join("proc"), dir.join("sys"));
    fs::create_dir_all(host.process(PID)).unwrap();
    run(&host, program);
    thread(&host, PID, program);
    host
}

fn run(host: &Host, program: &str) {
    let exe = host.process(PID).join("exe");
    let _ = fs::remove_file(&exe);
    symlink(format!("/usr/bin/{program}"), exe).unwrap();
}

fn thread(host: &Host, tid: u32, name: &str) {
    let dir = host.process(PID).join(format!("task/{tid}"));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("comm"), format!("{name}\n")).unwrap();
    fs::write(dir.join("schedstat"), "1000 10 1\n").unwrap();
}

/// The vCPUs of the process, whose source says that it is this hypervisor.
fn vcpus(reader: &mut ProcThreads, hypervisor: Hypervisor) -> Vec<u32> {
    let vm = InstanceInfo { hypervisor, hypervisor_pid: Some(PID), ..InstanceInfo::default() };
    let mut batch = Batch::default();
    reader.read(&VmSet { vms: vec![vm] }, &mut batch);
    batch.threads[&PID].vcpus.iter().map(|vcpu| vcpu.vcpu).collect()
}

#[test]
fn a_hypervisor_that_nobody_names_is_known_by_its_program() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "firecracker");
    thread(&host, PID + 1, "fc_vcpu 0");
    assert_eq!(vcpus(&mut ProcThreads::new(host), Hypervisor::Other), [0]);
}

#[test]
fn a_process_that_becomes_a_hypervisor_is_looked_at_again() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "jailer");
    let mut reader = ProcThreads::new(host.clone());
    assert_eq!(vcpus(&mut reader, Hypervisor::Other), [0; 0]);
    run(&host, "firecracker");
    thread(&host, PID + 1, "fc_vcpu 0");
    assert_eq!(vcpus(&mut reader, Hypervisor::Other), [0]);
}

#[test]
fn what_a_source_says_later_counts_for_threads_that_were_there_before() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "a-build-of-ours");
    thread(&host, PID + 1, "vcpu3");
    let mut reader = ProcThreads::new(host);
    for _ in 0..20 {
        assert_eq!(vcpus(&mut reader, Hypervisor::Other), [0; 0]);
    }
    assert_eq!(vcpus(&mut reader, Hypervisor::CloudHypervisor), [3]);
    assert_eq!(vcpus(&mut reader, Hypervisor::Other), [3], "it is still the same");
}
