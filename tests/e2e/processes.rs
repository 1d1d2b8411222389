//! Compares the metrics of real processes with their own actions.

mod counts;
mod vcpus;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::puppet::{self, Memory, Puppet};
use vm_metrics_testkit::wait::SOON;

use crate::fixture::BINARY;

const MIB: u64 = 1 << 20;

/// The kernel's counters of pages may be some pages per CPU off, and a process needs a little for itself.
const SLACK: f64 = (4 * MIB) as f64;

/// The child process of the other tests, see `puppet`.
#[test]
fn the_puppet() {
    puppet::run_if_asked().unwrap();
}

/// A puppet that stands in for a VM, and a daemon that monitors it.
struct PuppetVm {
    daemon: Daemon,
    puppet: Puppet,
    dir: TempDir,
}

impl PuppetVm {
    fn new(hypervisor: &str) -> Self {
        // Not in /tmp, which may be memory.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let puppet = Puppet::start("processes::the_puppet").unwrap();
        let daemon = watch(dir.path(), &puppet, hypervisor);
        Self { daemon, puppet, dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits for a tick that has begun after the call.
    fn tick(&self) {
        let before = self.now("vm_exporter_ticks_total").unwrap();
        self.wait_for("vm_exporter_ticks_total", |ticks| ticks >= before + 2.0);
    }

    fn now(&self, name: &str) -> Option<f64> {
        self.daemon.metrics().unwrap().value(name, &[])
    }

    fn wait_for(&self, name: &str, wanted: impl Fn(f64) -> bool) -> f64 {
        self.wait_for_labelled(name, &[], wanted)
    }

    fn vcpu(&self, name: &str, vcpu: &str, wanted: impl Fn(f64) -> bool) -> f64 {
        self.wait_for_labelled(name, &[("vcpu", vcpu)], wanted)
    }

    fn wait_for_labelled(&self, name: &str, labels: &[(&str, &str)], wanted: impl Fn(f64) -> bool) -> f64 {
        let mut last = None;
        let find = |metrics: &Metrics| {
            last = metrics.value(name, labels);
            last.filter(|value| wanted(*value))
        };
        let found = self.daemon.wait_for(SOON, name, find);
        found.unwrap_or_else(|error| panic!("{error:#}; {name} is {last:?}"))
    }
}

fn watch(dir: &Path, puppet: &Puppet, hypervisor: &str) -> Daemon {
    let config = configure(dir, puppet, hypervisor);
    let args = ["--no-ebpf", "--interval", "50ms", "--config", config.to_str().unwrap()];
    Daemon::start(Path::new(BINARY), &args).unwrap()
}

fn configure(dir: &Path, puppet: &Puppet, hypervisor: &str) -> PathBuf {
    let config = dir.join("config.toml");
    let vm = format!("id = \"puppet\"\npid = {}\nhypervisor = \"{hypervisor}\"\n", puppet.pid());
    fs::write(&config, format!("[sources.proc_scan]\nenabled = false\n[[sources.static_list.vms]]\n{vm}"))
        .unwrap();
    config
}

#[test]
fn memory_is_split_by_kind() {
    let mut vm = PuppetVm::new("other");
    // The first call also maps the code for it.
    for memory in [Memory::Anon, Memory::File, Memory::Shmem] {
        let file = vm.file("first");
        vm.puppet.map(memory, 4096, &file).unwrap();
    }
    vm.tick();
    let parts = ["vm_memory_anon_bytes", "vm_memory_file_bytes", "vm_memory_shmem_bytes"];
    let mut wanted = parts.map(|part| vm.wait_for(part, |_| true));
    for (of, memory, bytes) in
        [(0, Memory::Anon, 24 * MIB), (1, Memory::File, 40 * MIB), (2, Memory::Shmem, 56 * MIB)]
    {
        let file = vm.file("mapped");
        vm.puppet.map(memory, bytes, &file).unwrap();
        wanted[of] += bytes as f64;
        for (part, wanted) in parts.iter().zip(wanted) {
            vm.wait_for(part, |value| (value - wanted).abs() < SLACK);
        }
    }
    let sum: f64 = wanted.iter().sum();
    vm.wait_for("vm_memory_rss_bytes", |rss| (rss - sum).abs() < 3.0 * SLACK);
    assert_eq!(vm.now("vm_memory_swap_bytes"), Some(0.0));
}

#[test]
fn shared_memory_is_divided_only_on_request() {
    let mut vm = PuppetVm::new("other");
    vm.wait_for("vm_memory_anon_bytes", |_| true);
    vm.tick();
    assert_eq!(vm.now("vm_memory_pss_bytes"), None, "the reader is off by default");
    let config = configure(vm.dir.path(), &vm.puppet, "other");
    let mut text = fs::read_to_string(&config).unwrap();
    text.push_str("[readers.proc_smaps]\nenabled = true\ninterval = \"1s\"\n");
    fs::write(&config, text).unwrap();
    let args = ["--no-ebpf", "--interval", "50ms", "--config", config.to_str().unwrap()];
    vm.daemon = Daemon::start(Path::new(BINARY), &args).unwrap();

    // Both processes map the same program from the start.
    let mut other = Puppet::start("processes::the_puppet").unwrap();
    let file = vm.file("shared");
    vm.puppet.map(Memory::File, 40 * MIB, &file).unwrap();
    let mapped = |value| value > (40 * MIB) as f64;
    let private = vm.wait_for("vm_memory_private_bytes", mapped);
    let pss = vm.wait_for("vm_memory_pss_bytes", mapped);
    let rss = vm.wait_for("vm_memory_rss_bytes", mapped);
    other.map_file(40 * MIB, &file).unwrap();
    let fallen = |from: f64, by: u64| move |value: f64| (from - by as f64 - value).abs() < SLACK;
    vm.wait_for("vm_memory_pss_bytes", fallen(pss, 20 * MIB));
    vm.wait_for("vm_memory_private_bytes", fallen(private, 40 * MIB));
    vm.wait_for("vm_memory_rss_bytes", fallen(rss, 0));
}

#[test]
fn storage_reads_writes_and_cancelled_writes_are_counted() {
    let mut vm = PuppetVm::new("other");
    let before = ["read", "write", "cancelled_write"]
        .map(|what| vm.wait_for(&format!("vm_disk_{what}_bytes_total"), |_| true));
    let risen = |vm: &PuppetVm, what: usize, name: &str, by: u64| {
        // The file system adds a block or two of its own.
        let wanted = before[what] + by as f64;
        vm.wait_for(name, |value| value >= wanted && value < wanted + SLACK);
    };
    let file = vm.file("disk");
    vm.puppet.write(8 * MIB, true, &file).unwrap();
    risen(&vm, 1, "vm_disk_write_bytes_total", 8 * MIB);
    vm.puppet.read(&file).unwrap();
    risen(&vm, 0, "vm_disk_read_bytes_total", 8 * MIB);
    assert_eq!(vm.now("vm_disk_cancelled_write_bytes_total"), Some(before[2]));
}

#[test]
fn a_terminated_vm_keeps_counters_without_memory() {
    let mut vm = PuppetVm::new("other");
    vm.wait_for("vm_memory_anon_bytes", |value| value > 0.0);
    vm.puppet.die().unwrap();
    let gone = |metrics: &Metrics| metrics.value("vm_memory_anon_bytes", &[]).is_none().then_some(());
    vm.daemon.wait_for(SOON + Duration::from_secs(10), "the end of its memory", gone).unwrap();
    for name in ["vm_memory_rss_bytes", "vm_memory_swap_bytes", "vm_memory_hugetlb_bytes"] {
        assert_eq!(vm.now(name), None, "{name} of a zombie");
    }
}

/// Ticks are an hour apart. The end of the process triggers one before the parent reaps the zombie.
#[test]
fn a_process_end_publishes_its_final_usage() {
    let dir = tempfile::tempdir().unwrap();
    let mut puppet = Puppet::start("processes::the_puppet").unwrap();
    let config = configure(dir.path(), &puppet, "other");
    let args = ["--no-ebpf", "--interval", "1h", "--config", config.to_str().unwrap()];
    let daemon = Daemon::start(Path::new(BINARY), &args).unwrap();
    let used = |metrics: &Metrics| metrics.value("vm_cpu_seconds_total", &[]);
    let before = daemon.wait_for(SOON, "the first tick", used).unwrap();
    let worker = puppet.start_thread("worker").unwrap();
    puppet.work(worker, 300).unwrap();
    puppet.die().unwrap();
    let ended = |metrics: &Metrics| metrics.value("vm_running", &[]).filter(|up| *up == 0.0);
    daemon.wait_for(SOON, "its end", ended).unwrap();
    let after = used(&daemon.metrics().unwrap()).unwrap();
    // The kernel also gives this time in clock ticks.
    let in_all = vm_metrics::read_proc_stat(puppet.pid()).unwrap() as f64 / 1e6;
    assert!(after >= before + 0.3 && (after - in_all).abs() < 0.05, "{before} {after} {in_all}");
}

#[test]
fn cpu_time_is_finer_than_a_clock_tick() {
    let mut vm = PuppetVm::new("other");
    let thread = vm.puppet.start_thread("worker").unwrap();
    let is_fine = |_| {
        vm.puppet.work(thread, 3).unwrap();
        vm.tick();
        let in_ticks = vm.now("vm_cpu_seconds_total").unwrap() * 100.0;
        (in_ticks - in_ticks.round()).abs() > 0.01
    };
    assert!((0..20).any(is_fine), "every value is a number of ticks of 10 ms");
}
