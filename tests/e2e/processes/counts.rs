//! Page faults, threads, open files and context switches of processes.

use vm_metrics_testkit::skip::skip;

use super::*;

const SWITCHES: &str = "vm_context_switches_total";
const FAULTS: &str = "vm_page_faults_total";

/// Returns minor faults, major faults and threads of an idle process.
fn stat(pid: u32) -> [f64; 3] {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // `proc(5)` counts from 1, and the state is the third.
    [10, 12, 20].map(|field| fields[field - 3].parse().unwrap())
}

fn faults(metrics: &Metrics) -> Option<[f64; 2]> {
    let of = |kind| metrics.value(FAULTS, &[("kind", kind)]);
    Some([of("minor")?, of("major")?])
}

#[test]
fn faults_and_threads_match_the_kernel() {
    let mut vm = PuppetVm::new("other");
    let file = vm.file("mapped");
    vm.puppet.map(Memory::Shmem, 8 * MIB, &file).unwrap();
    vm.puppet.start_thread("worker").unwrap();
    let pid = vm.puppet.pid();
    let equal = |metrics: &Metrics| {
        let [minor, major] = faults(metrics)?;
        let threads = metrics.value("vm_threads", &[])?;
        ([minor, major, threads] == stat(pid)).then_some(minor)
    };
    let before = vm.daemon.wait_for(SOON, "the kernel's numbers", equal).unwrap();
    assert!(before > 0.0);
    vm.daemon = watch(vm.dir.path(), &vm.puppet, "other");
    let after = vm.daemon.wait_for(SOON, "them after a restart", equal).unwrap();
    assert!(after >= before, "{after} of {before}");
}

#[test]
fn open_files_match_the_kernel() {
    let vm = PuppetVm::new("other");
    let pid = vm.puppet.pid();
    vm.tick();
    if fs::metadata("/proc/self/fd").unwrap().len() == 0 {
        skip("the kernel gives the number of open files since Linux 6.2");
        return;
    }
    let listed = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as f64;
    vm.wait_for("vm_open_files", |value| value == listed);
}

#[test]
fn switches_rise_and_never_fall() {
    let mut vm = PuppetVm::new("other");
    let thread = vm.puppet.start_thread("worker").unwrap();
    let before = vm.wait_for(SWITCHES, |_| true);
    for _ in 0..30 {
        // The thread is idle in between.
        vm.puppet.work(thread, 1).unwrap();
    }
    let risen = vm.wait_for(SWITCHES, |value| value >= before + 30.0);
    vm.puppet.end_thread(thread).unwrap();
    vm.tick();
    assert!(vm.now(SWITCHES).unwrap() >= risen, "the sum fell with its thread");
    vm.daemon = watch(vm.dir.path(), &vm.puppet, "other");
    assert!(vm.wait_for(SWITCHES, |_| true) < risen, "a new daemon begins anew");
}

#[test]
fn counters_outlive_the_process_gauges_do_not() {
    let mut vm = PuppetVm::new("other");
    vm.tick();
    let before = faults(&vm.daemon.metrics().unwrap()).unwrap();
    let switches = vm.wait_for(SWITCHES, |_| true);
    vm.puppet.die().unwrap();
    let ended = |metrics: &Metrics| metrics.value("vm_running", &[]).filter(|up| *up == 0.0);
    vm.daemon.wait_for(SOON, "its end", ended).unwrap();
    let after = vm.daemon.metrics().unwrap();
    let [minor, major] = faults(&after).unwrap();
    assert!(minor >= before[0] && major >= before[1]);
    assert!(after.value(SWITCHES, &[]).unwrap() >= switches);
    for gauge in ["vm_threads", "vm_open_files"] {
        assert_eq!(after.value(gauge, &[]), None, "{gauge}");
    }
}

/// Files in a directory name the VMs.
#[test]
fn starts_and_ends_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let vms = dir.path().join("vms");
    fs::create_dir(&vms).unwrap();
    let list = |puppet: &Puppet, name: &str| {
        let file = vms.join(format!("{name}.toml"));
        fs::write(&file, format!("pid = {}\nhypervisor = \"qemu\"\n", puppet.pid())).unwrap();
        file
    };
    let old = Puppet::start("processes::the_puppet").unwrap();
    list(&old, "old");
    let config = dir.path().join("config.toml");
    let sources = format!("[sources]\nproc_scan.enabled = false\nvm_dir.dir = \"{}\"\n", vms.display());
    fs::write(&config, sources).unwrap();
    let args = ["--no-ebpf", "--interval", "50ms", "--config", config.to_str().unwrap()];
    let daemon = Daemon::start(Path::new(BINARY), &args).unwrap();
    let wait = |starts: f64, exited: f64, gone: f64, running: f64| {
        let counts = |metrics: &Metrics| {
            let ends = |reason| metrics.value("vm_ends_total", &[("hypervisor", "qemu"), ("reason", reason)]);
            let starts = metrics.value("vm_starts_total", &[("hypervisor", "qemu")]);
            [starts, ends("exited"), ends("gone"), metrics.value("vm_exporter_instances", &[])]
        };
        let wanted = [starts, exited, gone, running].map(Some);
        let mut last = None;
        let is_so = |metrics: &Metrics| {
            last = Some(counts(metrics));
            (last == Some(wanted)).then_some(())
        };
        let found = daemon.wait_for(SOON, "the counts", is_so);
        found.unwrap_or_else(|error| panic!("{error:#}: {last:?} is not {wanted:?}"));
    };
    wait(0.0, 0.0, 0.0, 1.0);
    let mut new = Puppet::start("processes::the_puppet").unwrap();
    let file = list(&new, "new");
    wait(1.0, 0.0, 0.0, 2.0);
    fs::remove_file(file).unwrap();
    wait(1.0, 0.0, 1.0, 1.0);
    list(&new, "new");
    wait(2.0, 0.0, 1.0, 2.0);
    new.die().unwrap();
    wait(2.0, 1.0, 1.0, 1.0);
    drop(old);
    wait(2.0, 2.0, 1.0, 0.0);
}
