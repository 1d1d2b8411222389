//! Tests of the manager with real processes.

use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;
use crate::model::{Hypervisor, Nic};
use crate::sources::{
    InstanceData, InstanceListerAdapter, InstanceManager, InstanceManagerAdapter, InstanceUtilizationInfo,
    Listing, SourceError,
};

struct Failing;

impl InstanceSource for Failing {
    fn list_running_instances_for_metrics(&mut self) -> Result<Listing, SourceError> {
        Err(SourceError::Ended)
    }
}

/// A process that lives as long as the test looks at it.
struct Process(Child);

impl Process {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }

    fn info(&self, id: &str) -> InstanceInfo {
        InstanceInfo { id: id.into(), hypervisor_pid: Some(self.0.id()), ..InstanceInfo::default() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn ids(manager: &Manager) -> Vec<String> {
    manager.collect_all().unwrap().into_iter().map(|vm| vm.instance_id).collect()
}

#[test]
fn without_a_source_there_are_no_vms() {
    assert_eq!(Manager::new().collect_all(), Ok(Vec::new()));
}

#[test]
fn the_source_that_is_set_last_counts() {
    let process = Process::start();
    let manager = Manager::new();
    manager.set_instance_source(vec![process.info("a")]);
    assert_eq!(ids(&manager), ["a"]);
    manager.set_instance_source(vec![process.info("b")]);
    assert_eq!(ids(&manager), ["b"]);
}

#[test]
fn a_renamed_process_counts_once() {
    let process = Process::start();
    let manager = Manager::new();
    manager.set_instance_source(vec![process.info("a")]);
    manager.collect();
    manager.set_instance_source(vec![process.info("b")]);
    let seen: Vec<_> =
        manager.collect().vms.iter().map(|vm| (vm.running, vm.process.cpu_usec.is_some())).collect();
    assert_eq!(seen, [(true, true), (false, false)]);
}

/// KubeVirt starts a VM with one vCPU of many, and plugs in the others.
#[test]
fn threads_count_the_plugged_vcpus() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::new(dir.path().join("proc"), dir.path().join("sys"));
    for (pid, names) in [(70, ["CPU 0/KVM", "CPU 1/KVM", "CPU 2/KVM"]), (80, ["qemu-system-x86"; 3])] {
        for (tid, name) in (pid..).zip(names) {
            let thread = host.process(pid).join(format!("task/{tid}"));
            fs::create_dir_all(&thread).unwrap();
            fs::write(thread.join("comm"), format!("{name}\n")).unwrap();
            fs::write(thread.join("schedstat"), "1000000 10 1\n").unwrap();
        }
    }
    for (pid, max_vcpus, expected) in
        [(70, Some(12), Some(3)), (70, None, Some(1)), (70, Some(2), Some(1)), (80, Some(12), Some(1))]
    {
        let manager = Manager::baseline(&host);
        manager.set_instance_source(vec![InstanceInfo {
            id: "a".into(),
            hypervisor: Hypervisor::Qemu,
            hypervisor_pid: Some(pid),
            allocated_vcpus: Some(1),
            max_vcpus,
            ..InstanceInfo::default()
        }]);
        assert_eq!(manager.collect().vms[0].allocated_vcpus, expected, "{pid} {max_vcpus:?}");
    }
}

#[test]
fn vcpus_are_known_without_a_hypervisor_name() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::new(dir.path().join("proc"), dir.path().join("sys"));
    let thread = host.process(70).join("task/71");
    fs::create_dir_all(&thread).unwrap();
    symlink("/usr/bin/firecracker", host.process(70).join("exe")).unwrap();
    fs::write(thread.join("comm"), "fc_vcpu 0\n").unwrap();
    fs::write(thread.join("schedstat"), "1000000 10 1\n").unwrap();
    let manager = Manager::baseline(&host);
    manager.set_instance_source(InstanceListerAdapter::new(|| {
        Ok(vec![InstanceData { id: "a".into(), hypervisor_pid: Some(70), ..InstanceData::default() }])
    }));
    let vcpus = &manager.collect_all().unwrap()[0].vcpus;
    assert_eq!(vcpus.iter().map(|vcpu| (vcpu.vcpu, vcpu.cpu_usec)).collect::<Vec<_>>(), [(0, 1000)]);
}

#[test]
fn clones_share_a_state_and_others_do_not() {
    let process = Process::start();
    let (one, other) = (Manager::new(), Manager::new());
    one.clone().set_instance_source(vec![process.info("a")]);
    assert_eq!((ids(&one), ids(&other)), (vec!["a".to_owned()], Vec::new()));
}

#[test]
fn a_failed_source_is_an_error() {
    let manager = Manager::new();
    manager.set_instance_source(Failing);
    let error = manager.collect_all().unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot list the VMs: source instance_source: the list function has panicked, or its runtime has ended"
    );
}

#[test]
fn an_unlisted_vm_is_read() {
    let process = Process::start();
    let manager = Manager::new();
    let read = |manager: &Manager| manager.get_instance_stats(&process.info("a")).unwrap();
    assert!(read(&manager).process.memory_rss_bytes > Some(0));
    assert_eq!(ids(&manager), Vec::<String>::new(), "it was only looked at");
    manager.set_instance_source(vec![process.info("a")]);
    assert_eq!(ids(&manager), ["a"]);
    assert!(read(&manager).process.memory_rss_bytes > Some(0));
}

#[test]
fn the_given_process_is_read_despite_a_source() {
    let (old, new) = (Process::start(), Process::start());
    let manager = Manager::new();
    manager.set_instance_source(vec![old.info("a")]);
    manager.collect();
    assert_eq!(manager.get_instance_stats(&new.info("a")).unwrap().hypervisor_pid, Some(new.0.id()));
    drop(old);
    assert!(manager.get_instance_stats(&new.info("a")).is_some());
    let with_nic = InstanceInfo { nics: vec![Nic::local("lo")], ..new.info("a") };
    manager.set_instance_source(vec![new.info("a")]);
    manager.collect();
    assert_eq!(manager.get_instance_stats(&with_nic).unwrap().nics.len(), 1);
}

#[test]
fn an_ended_process_has_no_stats() {
    let manager = Manager::new();
    let ended = Process::start().info("a");
    assert_eq!(manager.get_instance_stats(&ended), None);
    assert_eq!(manager.get_instance_stats(&InstanceInfo { hypervisor_pid: None, ..ended }), None);
}

#[test]
fn a_panicking_source_does_not_end_the_manager() {
    let manager = Manager::new();
    manager.set_instance_source(InstanceListerAdapter::new(|| panic!("a fault of theirs")));
    let error = manager.collect_all().unwrap_err();
    assert!(error.reason.contains("panicked"), "{error}");
    manager.set_instance_source(Vec::new());
    assert_eq!(ids(&manager), Vec::<String>::new());
}

/// As an orchestrator does whose database has gone away.
#[test]
fn a_source_that_blocks_holds_up_no_tick() {
    struct Blocks(mpsc::Receiver<()>, Vec<InstanceUtilizationInfo>, Arc<AtomicUsize>);
    impl InstanceManager for Blocks {
        fn list_running_instances_info(
            &mut self,
        ) -> Result<Vec<InstanceUtilizationInfo>, Box<dyn Error + Send + Sync>> {
            // The first call is answered.
            if self.2.fetch_add(1, Ordering::SeqCst) > 0 {
                self.0.recv()?;
            }
            Ok(self.1.clone())
        }
    }
    let process = Process::start();
    let vm = InstanceUtilizationInfo {
        id: "a".into(),
        hypervisor_pid: process.info("a").hypervisor_pid,
        ..InstanceUtilizationInfo::default()
    };
    let (go_on, blocked) = mpsc::channel();
    let asked = Arc::new(AtomicUsize::new(0));
    let manager = Manager::new();
    let source = InstanceManagerAdapter::new(Blocks(blocked, vec![vm], Arc::clone(&asked)));
    manager.set_instance_source(source.with_deadline(Duration::from_millis(500)));
    while manager.collect_all().is_err() {}
    let answered = asked.load(Ordering::SeqCst);
    let reason = |snapshot: &Snapshot| {
        let component = snapshot
            .components
            .iter()
            .find(|component| component.name == "instance_source")
            .expect("the source");
        (component.health.state, component.health.reason.clone())
    };
    let mut reasons = HashSet::new();
    for _ in 0..100 {
        let snapshot = manager.collect();
        let (state, reason) = reason(&snapshot);
        assert_eq!((state, snapshot.vms.len()), (Health::Failed, 1), "the last listing counts");
        assert!(snapshot.vms[0].running && reason.contains("has not answered since 20"), "{reason}");
        reasons.insert(reason);
    }
    assert_eq!((reasons.len(), asked.load(Ordering::SeqCst)), (1, answered + 1), "one call is under way");
    // All calls from now on are answered.
    drop(go_on);
    while asked.load(Ordering::SeqCst) == answered + 1 {
        manager.collect();
    }
}
