//! The task iterator and `/proc` give the same numbers, whichever is read.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::TempDir;
use vm_metrics::{ComponentRun, Health, Manager, ProcessStats, Snapshot, VmStats};
use vm_metrics_testkit::child::copy_program;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::puppet::{self, Memory, Puppet};
use vm_metrics_testkit::service;
use vm_metrics_testkit::skip::skip;
use vm_metrics_testkit::wait::{Deadline, SOON, wait_until};

use crate::isolation::isolated;
use crate::lab::manager_of;
use crate::pid_reuse::with_pid;
use crate::vmm::{Program, Work};

const MIB: u64 = 1 << 20;

const ON: &str = "[readers.task_iter]\nenabled = true\n";

/// The child process of the other tests, see `puppet`.
#[test]
fn the_puppet() {
    puppet::run_if_asked().unwrap();
}

fn config(pids: &[u32], tables: &str) -> String {
    let mut config =
        format!("{tables}\n[sources.proc_scan]\nenabled = false\n[readers.tap_ebpf]\nenabled = false\n");
    for pid in pids {
        config +=
            &format!("[[sources.static_list.vms]]\nid = \"{pid}\"\npid = {pid}\nhypervisor = \"qemu\"\n");
    }
    config
}

fn component<'s>(snapshot: &'s Snapshot, name: &str) -> &'s ComponentRun {
    snapshot.components.iter().find(|component| component.name == name).unwrap()
}

/// A manager with the iterator; `None`, and a skip, if this kernel has none.
fn manager(pids: &[u32]) -> Option<Manager> {
    let manager = manager_of(&config(pids, ON));
    let health = component(&manager.collect(), "task_iter").health.clone();
    // A host with many threads; on the others this holds for a moment of other tests at most.
    let rests = health.state == Health::Degraded && health.reason.starts_with("it rests while");
    if health.state == Health::Unsupported || rests {
        skip(&health.reason);
        return None;
    }
    assert_eq!(health.state, Health::Healthy, "{}", health.reason);
    Some(manager)
}

/// The numbers of the VMs in a tick in which the iterator had all of them.
fn by_iterator(manager: &Manager) -> Vec<ProcessStats> {
    let tick = || {
        let snapshot = manager.collect();
        let items = component(&snapshot, "task_iter").items;
        let is_by_iterator = items > 0 && items == snapshot.vms.len();
        assert!(!is_by_iterator || component(&snapshot, "proc_stat").items == 0, "both have read");
        Ok(is_by_iterator.then(|| snapshot.vms.iter().map(|vm| vm.process).collect()))
    };
    wait_until(SOON, "a tick by the iterator", tick).unwrap()
}

/// Memory of each kind, a file that is written, read and cut, and threads of which some have ended.
fn busy_puppet(dir: &TempDir, number: u64) -> Puppet {
    let file = |name: &str| dir.path().join(format!("{name}{number}"));
    let mut puppet = Puppet::start("task_iter::the_puppet").unwrap();
    puppet.map(Memory::Anon, (number + 1) * MIB, Path::new("-")).unwrap();
    puppet.map(Memory::Shmem, (number + 2) * MIB, Path::new("-")).unwrap();
    puppet.map(Memory::File, (number + 3) * MIB, &file("mapped")).unwrap();
    puppet.write(MIB, true, &file("written")).unwrap();
    puppet.write(number * MIB, false, &file("cancelled")).unwrap();
    fs::remove_file(file("cancelled")).unwrap();
    let threads: Vec<u32> =
        (0..5).map(|thread| puppet.start_thread(&format!("CPU {thread}/KVM")).unwrap()).collect();
    for thread in &threads {
        puppet.work(*thread, 5 * (number + 1)).unwrap();
    }
    for thread in &threads[3..] {
        puppet.end_thread(*thread).unwrap();
    }
    puppet
}

#[test]
fn its_numbers_are_those_of_proc() {
    // In /tmp, and in a guest of another kernel, files may be memory, which storage knows nothing of.
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    let has_disk = disk.is_ok();
    let dir = disk.or_else(|_| tempfile::tempdir()).unwrap();
    let puppets: Vec<Puppet> = (0..3).map(|number| busy_puppet(&dir, number)).collect();
    let pids: Vec<u32> = puppets.iter().map(Puppet::pid).collect();
    let Some(iterator) = manager(&pids) else { return };
    let files = manager_of(&config(&pids, ""));
    // Both have seen what the threads waited from here on.
    files.collect();
    let at_rest = || {
        let before = by_iterator(&iterator);
        let by_files: Vec<ProcessStats> = files.collect().vms.iter().map(|vm| vm.process).collect();
        // Otherwise something has changed meanwhile.
        Ok((before == by_iterator(&iterator)).then_some((before, by_files)))
    };
    let (by_iterator, by_files) = wait_until(SOON, "processes at rest", at_rest).unwrap();
    assert_eq!(by_iterator, by_files);
    for (number, stats) in (0..).zip(by_iterator) {
        assert!(stats.cpu_usec >= Some(25_000 * (number + 1)), "{stats:?}");
        assert!(stats.memory_shmem_bytes >= Some((number + 2) * MIB), "{stats:?}");
        assert!(stats.minor_page_faults > Some(256), "{stats:?}");
        assert!(!has_disk || stats.disk_write_bytes >= Some(MIB), "{stats:?}");
    }
}

/// Counters that fell, with both values.
fn fallen(before: &VmStats, after: &VmStats) -> Vec<(u64, u64)> {
    let counters = |stats: &ProcessStats| {
        let ProcessStats { cpu_usec, cpu_wait_usec, context_switches, .. } = *stats;
        let ProcessStats { minor_page_faults, major_page_faults, .. } = *stats;
        let ProcessStats { disk_read_bytes, disk_write_bytes, disk_cancelled_write_bytes, .. } = *stats;
        let disk = [disk_read_bytes, disk_write_bytes, disk_cancelled_write_bytes];
        let faults = [minor_page_faults, major_page_faults];
        [cpu_usec, cpu_wait_usec, context_switches].into_iter().chain(faults).chain(disk).collect::<Vec<_>>()
    };
    let pairs = counters(&before.process).into_iter().zip(counters(&after.process));
    let pairs = pairs.map(|(before, after)| (before.unwrap_or(0), after.unwrap_or(u64::MAX)));
    pairs.filter(|(before, after)| after < before).collect()
}

/// Threads that end make the files the source of a tick; the iterator is that of the others.
#[test]
fn a_switch_to_proc_lets_no_counter_fall() {
    switch(|_| {});
}

/// A new thread may have a lower number than an old one, and is visited before it.
#[test]
fn no_counter_falls_after_the_last_pid() {
    isolated("task_iter::no_counter_falls_after_the_last_pid", || {
        switch(|thread| {
            let last = if thread % 2 == 0 { "20000" } else { "100" };
            fs::write("/proc/sys/kernel/ns_last_pid", last).unwrap();
        });
    });
}

/// Ticks while threads of this process start and end, with `prepare` before each start.
fn switch(prepare: impl Fn(u32) + Send + 'static) {
    let Some(manager) = manager(&[std::process::id()]) else { return };
    let stop = Arc::new(AtomicBool::new(false));
    let churning = Arc::new(AtomicBool::new(false));
    let churner = thread::spawn({
        let (stop, churning) = (Arc::clone(&stop), Arc::clone(&churning));
        move || {
            while !stop.load(Ordering::Relaxed) {
                if churning.load(Ordering::Relaxed) {
                    let start = |thread| {
                        prepare(thread);
                        thread::spawn(|| drop(vec![1_u8; 1 << 20]))
                    };
                    let threads: Vec<_> = (0..4).map(start).collect();
                    threads.into_iter().for_each(|thread| thread.join().unwrap());
                } else {
                    thread::yield_now();
                }
            }
        }
    });
    let mut deadline = Deadline::after(SOON);
    let mut before = manager.collect();
    let mut switches = 0;
    let mut was_by_iterator = true;
    let mut ticks = 0;
    while switches < 10 || (ticks < 1000 && !deadline.has_passed()) {
        assert!(switches >= 10 || !deadline.has_passed(), "{switches} switches");
        // Now and then without, for a tick that is surely by the iterator.
        churning.store(ticks % 8 != 0, Ordering::Relaxed);
        ticks += 1;
        let after = manager.collect();
        assert_eq!(fallen(&before.vms[0], &after.vms[0]), [], "{before:?}\n{after:?}");
        let is_by_iterator = component(&after, "task_iter").items == 1;
        switches += u64::from(is_by_iterator != was_by_iterator);
        (before, was_by_iterator) = (after, is_by_iterator);
    }
    stop.store(true, Ordering::Relaxed);
    churner.join().unwrap();
}

#[test]
fn an_ended_process_is_not_published() {
    let mut puppet = Puppet::start("task_iter::the_puppet").unwrap();
    let Some(manager) = manager(&[puppet.pid()]) else { return };
    assert_eq!(by_iterator(&manager).len(), 1);
    puppet.die().unwrap();
    let ended = || {
        let snapshot = manager.collect();
        assert!(component(&snapshot, "task_iter").items <= usize::from(snapshot.vms[0].running));
        Ok((!snapshot.vms[0].running).then(|| snapshot.vms[0].process))
    };
    let last = wait_until(SOON, "the end", ended).unwrap();
    assert_eq!((last.memory_rss_bytes, last.threads), (None, None), "{last:?}");
    assert!(last.cpu_usec > Some(0), "{last:?}");
}

/// In a pid namespace, whose numbers are not those of the host.
#[test]
fn a_reused_pid_is_another_process() {
    isolated("task_iter::a_reused_pid_is_another_process", || {
        let _namespace = NetNs::enter().unwrap();
        let program = Program::new();
        let first = program.start("vmt0", Work { cpu: 2000, ..Work::default() });
        let pid = first.0.pid();
        if manager(&[pid]).is_none() {
            return;
        }
        let manager = manager_of(&format!("retention = \"0s\"\n{ON}[readers.tap_ebpf]\nenabled = false\n"));
        let only = |stats: Vec<ProcessStats>| <[ProcessStats; 1]>::try_from(stats).unwrap()[0];
        assert!(only(by_iterator(&manager)).cpu_usec >= Some(2_000_000));
        let started = manager.collect().vms[0].start_time;
        first.kill();
        let _second = with_pid(&program, pid, Work::default());
        let after = only(by_iterator(&manager));
        assert!(after.cpu_usec < Some(2_000_000), "{after:?}");
        assert!(manager.collect().vms[0].start_time > started);
    });
}

#[test]
fn the_units_capabilities_are_enough() {
    let puppet = Puppet::start("task_iter::the_puppet").unwrap();
    if manager(&[puppet.pid()]).is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let binary = dir.path().join("vm-metrics");
    copy_program(Path::new(env!("CARGO_BIN_EXE_vm-metrics")), &binary).unwrap();
    let file = dir.path().join("config.toml");
    fs::write(&file, config(&[puppet.pid()], ON)).unwrap();
    let health = |mut command: Command, state: &str| {
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&file);
        let daemon = Daemon::start_command(command).unwrap();
        daemon.wait_until_ready().unwrap();
        let labels = [("component", "task_iter"), ("state", state)];
        let has_state = |metrics: &Metrics| {
            assert!(metrics.value("vm_cpu_seconds_total", &[]).is_some(), "{state}");
            (metrics.value("vm_exporter_component_health", &labels) == Some(1.0)).then_some(())
        };
        daemon.wait_for(SOON, state, has_state).unwrap();
        daemon.log()
    };
    health(service::command(&binary, &service::capabilities()), "healthy");
    let log = health(service::command(&binary, &["+net_admin".to_owned()]), "unsupported");
    assert!(log.contains("task_iter") && log.contains("CAP_PERFMON"), "{log}");
}
