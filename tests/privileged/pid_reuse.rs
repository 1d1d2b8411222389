//! A reused pid is another process and inherits nothing.

use std::fs;

use vm_metrics::Manager;
use vm_metrics::VmStats;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::wait::{SOON, wait_until};

use crate::isolation::isolated;
use crate::lab::manager_of;
use crate::vmm::{FRAME, Program, Vmm, Work};

const TABLES: &str = "retention = \"5m\"\n[readers.tap_ebpf]\npin = false\n";

/// Starts VMs until one has this pid, in the test's pid namespace. Threads take numbers too.
pub(crate) fn with_pid(program: &Program, pid: u32, work: Work) -> Vmm {
    let start = || {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())?;
        let vmm = program.start_at_once("vmt0", work);
        if vmm.0.pid() == pid {
            return Ok(Some(vmm));
        }
        vmm.kill();
        Ok(None)
    };
    let mut vmm = wait_until(SOON, "the pid", start).unwrap();
    vmm.0.wait_for_log(SOON, "that it is done", |log| log.contains("done\n").then_some(())).unwrap();
    vmm
}

fn running(manager: &Manager) -> Vec<VmStats> {
    manager.collect().vms.iter().filter(|vm| vm.running).cloned().collect()
}

/// A new process that does not answer in time is found by a later tick.
fn only_vm(manager: &Manager) -> VmStats {
    let only = || {
        let vms = running(manager);
        assert!(vms.len() <= 1, "{vms:?}");
        Ok(<[VmStats; 1]>::try_from(vms).ok().map(|[vm]| vm))
    };
    wait_until(SOON, "one VM", only).unwrap()
}

#[test]
fn a_reused_pid_inherits_nothing() {
    isolated("pid_reuse::a_reused_pid_inherits_nothing", || {
        let _namespace = NetNs::enter().unwrap();
        let manager = manager_of(TABLES);
        let program = Program::new();
        let first = program.start("vmt0", Work { frames: 50, cpu: 500, ..Work::default() });
        let pid = first.0.pid();
        manager.collect();
        let before = only_vm(&manager);
        assert!(before.process.cpu_usec >= Some(500_000), "{before:?}");
        assert_eq!((before.hypervisor_pid, before.net_tx_bytes), (Some(pid), Some(50 * FRAME)));

        // No tick falls between, so no tick saw the pid without a process.
        first.kill();
        let second = with_pid(&program, pid, Work { frames: 3, ..Work::default() });
        for round in 0..3 {
            let vms = if round == 0 { vec![only_vm(&manager)] } else { running(&manager) };
            let [after] = &vms[..] else { panic!("one VM, not {vms:?}") };
            assert_eq!((after.hypervisor_pid, after.net_tx_bytes), (Some(pid), Some(3 * FRAME)));
            assert!(after.nics[0].start_time > before.nics[0].start_time, "{after:?} after {before:?}");
            assert!(
                after.process.cpu_usec.is_some() && after.process.cpu_usec < before.process.cpu_usec,
                "{after:?} after {before:?}"
            );
            assert!(after.start_time > before.start_time, "{after:?} after {before:?}");
        }
        drop(second);
    });
}

#[test]
fn a_recorded_pid_matches_only_its_process() {
    isolated("pid_reuse::a_recorded_pid_matches_only_its_process", || {
        let _namespace = NetNs::enter().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let program = Program::new();
        let first = program.start("vmt0", Work::default());
        let pid = first.0.pid();
        fs::write(&pid_file, pid.to_string()).unwrap();
        let manager = manager_of(&format!(
            "{TABLES}[sources.proc_scan]\nenabled = false\n\
             [[sources.static_list.vms]]\nid = \"a\"\npid_file = {pid_file:?}\n"
        ));
        let [before] = &running(&manager)[..] else { panic!("one VM") };
        assert!(before.process.memory_rss_bytes > Some(0), "{before:?}");

        first.kill();
        let second = with_pid(&program, pid, Work::default());
        // At first the files of the ended process also explain this.
        for _ in 0..3 {
            let after = running(&manager);
            let unread =
                |vm: &VmStats| vm.process.memory_rss_bytes.is_none() && vm.process.cpu_usec.is_none();
            assert!(after.iter().all(unread), "{after:?}");
        }
        drop(second);
    });
}
