//! Tests of threads and vCPUs, on a procfs made of files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::model::InstanceInfo;
use crate::model::Overuse;

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
    thread_of(host, PID, tid, name);
}

fn thread_of(host: &Host, pid: u32, tid: u32, name: &str) {
    let dir = host.process(pid).join(format!("task/{tid}"));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("comm"), format!("{name}\n")).unwrap();
    fs::write(dir.join("schedstat"), "1000 10 1\n").unwrap();
}

/// The vCPUs of the process, whose source names this hypervisor.
fn vcpus(reader: &mut ProcThreads, hypervisor: Hypervisor) -> Vec<u32> {
    let vm = InstanceInfo { hypervisor, hypervisor_pid: Some(PID), ..InstanceInfo::default() };
    let mut batch = Batch::default();
    reader.read(&VmSet { vms: vec![vm] }, &mut Namespaces::default(), &mut batch);
    batch.threads[&PID].vcpus.iter().map(|vcpu| vcpu.vcpu).collect()
}

#[test]
fn an_unnamed_hypervisor_is_known_by_its_program() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "firecracker");
    thread(&host, PID + 1, "fc_vcpu 0");
    assert_eq!(vcpus(&mut ProcThreads::new(host, Trust::default(), Purpose::Serve), Hypervisor::Other), [0]);
}

#[test]
fn a_process_can_become_a_hypervisor() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "jailer");
    let mut reader = ProcThreads::new(host.clone(), Trust::default(), Purpose::Serve);
    assert_eq!(vcpus(&mut reader, Hypervisor::Other), [0; 0]);
    run(&host, "firecracker");
    thread(&host, PID + 1, "fc_vcpu 0");
    assert_eq!(vcpus(&mut reader, Hypervisor::Other), [0]);
}

#[test]
fn a_later_name_counts_for_old_threads() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "a-build-of-ours");
    thread(&host, PID + 1, "vcpu3");
    let mut reader = ProcThreads::new(host, Trust::default(), Purpose::Serve);
    for _ in 0..20 {
        assert_eq!(vcpus(&mut reader, Hypervisor::Other), [0; 0]);
    }
    assert_eq!(vcpus(&mut reader, Hypervisor::CloudHypervisor), [3]);
    assert_eq!(vcpus(&mut reader, Hypervisor::Other), [3], "it is still the same");
}

/// A VM of this user on the host, with so many threads.
fn vm_of(host: &Host, uid: u32, pid: u32, threads: u32) -> InstanceInfo {
    for tid in pid..pid + threads {
        thread_of(host, pid, tid, &format!("CPU {}/KVM", tid - pid));
    }
    let (hypervisor, hypervisor_pid) = (Hypervisor::Qemu, Some(pid));
    InstanceInfo { uid: Some(uid), hypervisor, hypervisor_pid, ..InstanceInfo::default() }
}

fn empty_host(dir: &Path) -> Host {
    Host::new(dir.join("proc"), dir.join("sys"))
}

/// The reading of each VM in one tick: its vCPUs, and whether the waits of all threads are known.
fn look(reader: &mut ProcThreads, vms: &VmSet) -> (Vec<(usize, bool)>, ReadReport) {
    let mut batch = Batch::default();
    let report = reader.read(vms, &mut Namespaces::default(), &mut batch);
    let knows_wait = |pid| batch.processes[&pid].stats.cpu_wait_usec.is_some();
    let of = |pid| batch.threads.get(&pid).map(|read| (read.vcpus.len(), knows_wait(pid)));
    (vms.pids().map(|pid| of(pid).unwrap_or_default()).collect(), report)
}

#[test]
fn threads_beyond_the_limit_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let host = empty_host(dir.path());
    let vms = VmSet { vms: vec![vm_of(&host, 1000, 10_000, 1030), vm_of(&host, 0, 20_000, 1030)] };
    let mut reader = ProcThreads::new(host, Trust::default(), Purpose::Serve);
    for _ in 0..3 {
        let (read, report) = look(&mut reader, &vms);
        assert_eq!(read, [(1024, false), (1024, true)]);
        let threads = Overuse { uid: Some(1000), resource: "threads", count: 6 };
        assert!(report.overuse.into_list().contains(&threads));
    }
}

#[test]
fn unread_threads_leave_vcpus_without_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let host = empty_host(dir.path());
    let limited = InstanceInfo { allocated_vcpus: Some(2), ..vm_of(&host, 1000, 100, 5) };
    let no_vcpus = InstanceInfo { hypervisor: Hypervisor::Xen, ..vm_of(&host, 0, 200, 3) };
    let vms = VmSet { vms: vec![limited, no_vcpus, vm_of(&host, 1001, 10_000, 1030)] };
    let mut reader = ProcThreads::new(host, Trust::default(), Purpose::Serve);
    let mut batch = Batch::default();
    for _ in 0..3 {
        reader.read(&vms, &mut Namespaces::default(), &mut batch);
    }
    let count = |pid| (batch.threads[&pid].vcpus.len(), batch.threads[&pid].vcpu_count);
    assert_eq!([count(100), count(200), count(10_000)], [(2, Some(5)), (0, None), (1024, None)]);
}

/// The names of threads may have to wait for the next tick.
#[test]
fn vcpus_get_numbers_after_all_names() {
    let dir = tempfile::tempdir().unwrap();
    let host = empty_host(dir.path());
    let vms = VmSet { vms: vec![vm_of(&host, 1000, 100, 5)] };
    for max_opens in 1..12 {
        let mut reader =
            ProcThreads { max_opens, ..ProcThreads::new(host.clone(), Trust::default(), Purpose::Serve) };
        let mut count = || {
            let mut batch = Batch::default();
            reader.read(&vms, &mut Namespaces::default(), &mut batch);
            batch.threads[&100].vcpu_count
        };
        let counts: Vec<_> = (0..12).map(|_| count()).collect();
        assert!(counts.iter().flatten().all(|count| *count == 5), "{max_opens}: {counts:?}");
        assert_eq!(counts.last(), Some(&Some(5)), "{max_opens}");
    }
}

#[test]
fn threads_without_files_are_said_at_each_look() {
    let dir = tempfile::tempdir().unwrap();
    let host = empty_host(dir.path());
    let vms =
        VmSet { vms: vec![vm_of(&host, 1000, 100, 20), vm_of(&host, 1001, 200, 3), vm_of(&host, 0, 300, 5)] };
    let mut reader =
        ProcThreads { max_files: 3 + 5 + 3 + 7, ..ProcThreads::new(host, Trust::default(), Purpose::Serve) };
    for _ in 0..4 {
        let (read, report) = look(&mut reader, &vms);
        assert_eq!(read, [(7, false), (3, true), (5, true)]);
        let error = report.first_error.unwrap().to_string();
        assert!(error.contains("13 threads of process 100 are not read"), "{error}");
    }
    reader.max_files = 1000;
    look(&mut reader, &vms);
    let (read, report) = look(&mut reader, &vms);
    assert_eq!((read, report.errors), (vec![(20, true), (3, true), (5, true)], 0));
}

/// Users with thousands of new threads share the files that one tick opens.
#[test]
fn opening_files_is_shared_between_users() {
    let dir = tempfile::tempdir().unwrap();
    let host = empty_host(dir.path());
    let greedy = (0..5).map(|number| vm_of(&host, 1000, 1000 * number + 1000, 30));
    let vms = VmSet { vms: greedy.chain([vm_of(&host, 1001, 100, 20), vm_of(&host, 0, 200, 40)]).collect() };
    let mut reader =
        ProcThreads { max_opens: 80, ..ProcThreads::new(host, Trust::default(), Purpose::Serve) };
    let (read, _) = look(&mut reader, &vms);
    assert_eq!(read[5..], [(20, true), (40, true)]);
    let of_greedy: usize = read[..5].iter().map(|(vcpus, _)| vcpus).sum();
    assert!(of_greedy <= 40, "{read:?}");
    let complete = |read: &[(usize, bool)]| read.iter().all(|(_, complete)| *complete);
    let in_the_end = (0..20).any(|_| complete(&look(&mut reader, &vms).0));
    assert!(in_the_end, "the next ticks go on");
}

/// What threads waited before the first look is not known to be of our time.
#[test]
fn the_first_look_knows_no_sums() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "firecracker");
    let vms = VmSet { vms: vec![InstanceInfo { hypervisor_pid: Some(PID), ..InstanceInfo::default() }] };
    for (purpose, first) in [(Purpose::Serve, Some(0)), (Purpose::Look, None)] {
        let mut reader = ProcThreads::new(host.clone(), Trust::default(), purpose);
        let mut sums = || {
            let mut batch = Batch::default();
            reader.read(&vms, &mut Namespaces::default(), &mut batch);
            let stats = batch.processes[&PID].stats;
            (stats.cpu_wait_usec, stats.context_switches)
        };
        assert_eq!(sums(), (first, first), "{purpose:?}");
        assert_eq!(sums(), (Some(0), Some(0)), "{purpose:?}: the second");
    }
}
