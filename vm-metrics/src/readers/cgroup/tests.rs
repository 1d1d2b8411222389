//! Tests of the control groups of VMs, on a file system made of files.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::readers::Purpose;

const INTERVAL: Duration = Duration::from_secs(10);

/// A host made of files, with control groups.
struct Fixture {
    dir: TempDir,
    host: Host,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path().join("proc"), dir.path().join("sys"));
        fs::create_dir_all(host.process_itself()).unwrap();
        fs::create_dir_all(host.cgroups()).unwrap();
        let line = format!("35 24 0:30 / {} rw - cgroup2 cgroup2 rw\n", host.cgroups().display());
        fs::write(host.mounts(), line).unwrap();
        fs::write(host.cgroups().join("cgroup.controllers"), "cpu memory io\n").unwrap();
        let fixture = Self { dir, host };
        fixture.enter_itself("/system.slice/vm-metrics.service");
        fixture
    }

    fn enter_itself(&self, group: &str) {
        fs::write(self.host.process_itself().join("cgroup"), format!("0::{group}\n")).unwrap();
    }

    /// Puts a process into a group with a number of throttled periods.
    fn put(&self, pid: u32, group: &str, throttled: u64) {
        let process = self.host.process(pid);
        fs::create_dir_all(&process).unwrap();
        fs::write(process.join("cgroup"), format!("0::{group}\n")).unwrap();
        self.count(group, throttled);
        self.add_member(pid, group);
    }

    /// Its last group has it no more.
    fn add_member(&self, pid: u32, group: &str) {
        let line = format!("{pid}\n");
        for directory in fs::read_dir(self.host.cgroups()).unwrap() {
            let members = directory.unwrap().path().join("cgroup.procs");
            if let Ok(text) = fs::read_to_string(&members) {
                fs::write(&members, text.replace(&line, "")).unwrap();
            }
        }
        let members = self.directory(group).join("cgroup.procs");
        let others = fs::read_to_string(&members).unwrap_or_default();
        fs::write(&members, others + &line).unwrap();
    }

    fn count(&self, group: &str, throttled: u64) {
        let directory = self.directory(group);
        fs::create_dir_all(&directory).unwrap();
        let cpu = format!("usage_usec 1\nnr_periods 100\nnr_throttled {throttled}\nthrottled_usec 5000000\n");
        for (file, content) in [
            ("cpu.stat", cpu.as_str()),
            ("memory.events", "low 0\noom 3\noom_kill 2\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "8192\n"),
            ("io.pressure", "some avg10=0.00 total=7\nfull avg10=0.00 total=6\n"),
        ] {
            fs::write(directory.join(file), content).unwrap();
        }
    }

    fn directory(&self, group: &str) -> PathBuf {
        self.host.cgroups().join(Path::new(group).strip_prefix("/").unwrap())
    }

    fn reader(&self) -> Cgroup {
        let context = ReaderContext::of_test(self.host.clone(), Purpose::Look);
        Cgroup::new(&context, Mount::find(&self.host).unwrap(), INTERVAL)
    }
}

fn vms(pids: &[u32]) -> VmSet {
    let vm = |pid: &u32| InstanceInfo { hypervisor_pid: Some(*pid), uid: Some(0), ..InstanceInfo::default() };
    VmSet { vms: pids.iter().map(vm).collect() }
}

/// How often the group of each VM was throttled, after so many intervals; with the report.
fn look(reader: &mut Cgroup, intervals: u32, pids: &[u32]) -> (Vec<Option<u64>>, ReadReport) {
    let mut batch = Batch::default();
    let report = reader.read_at(INTERVAL * intervals, &vms(pids), &mut batch);
    let throttled = |pid| batch.processes.get(pid).and_then(|process| process.cgroup?.cpu_throttled_periods);
    (pids.iter().map(throttled).collect(), report)
}

#[test]
fn a_vm_has_the_numbers_of_its_group() {
    let host = Fixture::new();
    host.put(7, "/machine.slice/web.scope", 50);
    let mut batch = Batch::default();
    let report = host.reader().read_at(Duration::ZERO, &vms(&[7]), &mut batch);
    let group = batch.processes[&7].cgroup.unwrap();
    assert_eq!((report.items, report.errors), (1, 0));
    assert_eq!((group.cpu_periods, group.cpu_throttled_usec), (Some(100), Some(5_000_000)));
    assert_eq!(
        (group.oom_kills, group.memory_bytes, group.memory_limit_bytes),
        (Some(2), Some(4096), Some(8192))
    );
    assert_eq!((group.io_pressure.some_usec, group.io_pressure.full_usec), (Some(7), Some(6)));
    assert_eq!(group.cpu_pressure.some_usec, None, "the kernel has no such file");
}

#[test]
fn groups_of_several_are_of_none() {
    let host = Fixture::new();
    host.put(1, "/a", 10);
    host.put(2, "/b", 20);
    let mut reader = host.reader();
    assert_eq!(look(&mut reader, 0, &[1, 2]).0, [Some(10), Some(20)]);
    host.put(3, "/a/below", 1);
    host.count("/a", 15);
    assert_eq!(look(&mut reader, 2, &[1, 2, 3]).0, [None, Some(20), Some(1)]);
    // Counts of both belong to neither.
    host.count("/a", 90);
    look(&mut reader, 4, &[1, 2]);
    host.count("/a", 92);
    assert_eq!(look(&mut reader, 6, &[1, 2]).0, [Some(12), Some(20)]);
    host.enter_itself("/b/daemon");
    assert_eq!(look(&mut reader, 8, &[1, 2]).0, [Some(12), None]);
}

/// A group has its turn once in an interval, and each VM another turn.
#[test]
fn a_vm_that_moved_in_later_counts() {
    let host = Fixture::new();
    host.put(1, "/a", 10);
    host.put(2, "/b", 20);
    let mut reader = host.reader();
    look(&mut reader, 0, &[1, 2]);
    host.put(2, "/a", 90);
    // The turn of the first VM alone.
    let mut batch = Batch::default();
    let turn = INTERVAL * 5 / (2 * TURNS);
    reader.read_at(turn, &vms(&[1, 2]), &mut batch);
    let group = |pid| batch.processes.get(&pid).and_then(|process| process.cgroup);
    assert_eq!(group(1), None, "it has both VMs' numbers");
}

#[test]
fn a_silent_vm_stays_in_its_group() {
    let host = Fixture::new();
    host.put(1, "/a", 10);
    host.add_member(2, "/a");
    // A directory cannot be read.
    fs::create_dir_all(host.host.process(2).join("cgroup")).unwrap();
    let mut reader = host.reader();
    assert_eq!(look(&mut reader, 0, &[1, 2]).0, [None, None]);
    fs::remove_dir(host.host.process(2).join("cgroup")).unwrap();
    host.put(2, "/b", 20);
    look(&mut reader, 2, &[1, 2]);
    host.count("/a", 13);
    look(&mut reader, 4, &[1, 2]);
    host.count("/a", 15);
    assert_eq!(look(&mut reader, 6, &[1, 2]).0, [Some(5), Some(20)]);
}

/// The kernel adds ` (deleted)` to the path of a removed group; a user may give a group that name.
#[test]
fn a_group_may_be_named_deleted() {
    let host = Fixture::new();
    host.put(1, "/a (deleted)", 10);
    let mut reader = host.reader();
    assert_eq!(look(&mut reader, 0, &[1]).0, [Some(10)]);
    fs::remove_dir_all(host.directory("/a (deleted)")).unwrap();
    let (read, report) = look(&mut reader, 2, &[1]);
    assert_eq!((read, report.errors), (vec![Some(10)], 0), "the last numbers");
}

#[test]
fn the_root_is_no_vms_group() {
    let host = Fixture::new();
    host.put(1, "/", 10);
    assert_eq!(look(&mut host.reader(), 0, &[1]).0, [None]);
}

#[test]
fn groups_of_threads_count_as_the_one_above() {
    let host = Fixture::new();
    host.put(1, "/web.scope/libvirt/emulator", 1);
    host.count("/web.scope/libvirt", 30);
    for (group, kind) in [("emulator", "threaded\n"), ("", "domain threaded\n")] {
        fs::write(host.directory("/web.scope/libvirt").join(group).join("cgroup.type"), kind).unwrap();
    }
    assert_eq!(look(&mut host.reader(), 0, &[1]).0, [Some(30)]);
}

#[test]
fn groups_out_of_sight_are_reported() {
    let host = Fixture::new();
    host.put(1, "/a", 10);
    host.put(2, "/b", 20);
    fs::write(host.host.process(2).join("cgroup"), "0::/../../b\n").unwrap();
    let (read, report) = look(&mut host.reader(), 0, &[1, 2]);
    assert_eq!((read, report.absent, report.errors), (vec![Some(10), None], 1, 1));
    let reason = report.first_error.unwrap().to_string();
    assert!(reason.contains("process 2") && reason.contains("--cgroupns=host"), "{reason}");
}

#[test]
fn a_group_is_read_once_in_an_interval() {
    let host = Fixture::new();
    host.put(1, "/a", 10);
    let mut reader = host.reader();
    look(&mut reader, 0, &[1]);
    look(&mut reader, 1, &[1]);
    host.count("/a", 11);
    let mut batch = Batch::default();
    reader.read_at(INTERVAL + INTERVAL / 2, &vms(&[1]), &mut batch);
    assert_eq!(batch.processes[&1].cgroup.unwrap().cpu_throttled_periods, Some(10));
    assert_eq!(look(&mut reader, 2, &[1]).0, [Some(11)]);
}

#[test]
fn a_vm_that_moves_goes_on_counting() {
    let host = Fixture::new();
    host.put(1, "/a", 10);
    let mut reader = host.reader();
    look(&mut reader, 0, &[1]);
    host.put(1, "/new", 500);
    assert_eq!(look(&mut reader, 2, &[1]).0, [Some(10)]);
    host.count("/new", 503);
    assert_eq!(look(&mut reader, 4, &[1]).0, [Some(13)]);
}

#[test]
fn final_numbers_outlive_the_process() {
    let host = Fixture::new();
    host.put(1, "/a", 10);
    let mut reader = host.reader();
    look(&mut reader, 0, &[1]);
    host.count("/a", 12);
    fs::remove_dir_all(host.host.process(1)).unwrap();
    look(&mut reader, 0, &[]);
    let mut last = Batch::default();
    reader.read_final(&vms(&[1]), &mut Namespaces::default(), &mut last);
    assert_eq!(last.removed_processes[&1].cgroup.unwrap().cpu_throttled_periods, Some(12));
    assert!(reader.known.is_empty());
    drop(host.dir);
}
