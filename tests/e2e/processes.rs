//! Real processes that stand in for VMs: what the daemon says of them is what they did.

mod counts;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::puppet::{self, Memory, Puppet};
use vm_metrics_testkit::wait::SOON;

use crate::fixture::{BINARY, serve_with_files};

const MIB: u64 = 1 << 20;

/// The kernel's counters of pages may be some pages per CPU off, and a process needs a little for itself.
const SLACK: f64 = (4 * MIB) as f64;

/// Not a test but the process of the others: see `puppet`.
#[test]
fn the_puppet() {
    puppet::run_if_asked().unwrap();
}

/// A VM that is a puppet, and a daemon that was told of it.
struct Watched {
    daemon: Daemon,
    puppet: Puppet,
    dir: TempDir,
}

impl Watched {
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
    let mut watched = Watched::new("other");
    // The code that does it comes into memory with the first time.
    for memory in [Memory::Anon, Memory::File, Memory::Shmem] {
        let file = watched.file("first");
        watched.puppet.map(memory, 4096, &file).unwrap();
    }
    watched.tick();
    let parts = ["vm_memory_anon_bytes", "vm_memory_file_bytes", "vm_memory_shmem_bytes"];
    let mut wanted = parts.map(|part| watched.wait_for(part, |_| true));
    for (of, memory, bytes) in
        [(0, Memory::Anon, 24 * MIB), (1, Memory::File, 40 * MIB), (2, Memory::Shmem, 56 * MIB)]
    {
        let file = watched.file("mapped");
        watched.puppet.map(memory, bytes, &file).unwrap();
        wanted[of] += bytes as f64;
        for (part, wanted) in parts.iter().zip(wanted) {
            watched.wait_for(part, |value| (value - wanted).abs() < SLACK);
        }
    }
    let sum: f64 = wanted.iter().sum();
    watched.wait_for("vm_memory_rss_bytes", |rss| (rss - sum).abs() < 3.0 * SLACK);
    assert_eq!(watched.now("vm_memory_swap_bytes"), Some(0.0));
}

#[test]
fn shared_memory_is_divided_only_on_request() {
    let mut watched = Watched::new("other");
    watched.wait_for("vm_memory_anon_bytes", |_| true);
    watched.tick();
    assert_eq!(watched.now("vm_memory_pss_bytes"), None, "nobody has asked for it");
    let config = configure(watched.dir.path(), &watched.puppet, "other");
    let mut text = fs::read_to_string(&config).unwrap();
    text.push_str("[readers.proc_smaps]\nenabled = true\ninterval = \"1s\"\n");
    fs::write(&config, text).unwrap();
    let args = ["--no-ebpf", "--interval", "50ms", "--config", config.to_str().unwrap()];
    watched.daemon = Daemon::start(Path::new(BINARY), &args).unwrap();

    // It shares the program with the first from the start.
    let mut other = Puppet::start("processes::the_puppet").unwrap();
    let file = watched.file("shared");
    watched.puppet.map(Memory::File, 40 * MIB, &file).unwrap();
    let mapped = |value| value > (40 * MIB) as f64;
    let private = watched.wait_for("vm_memory_private_bytes", mapped);
    let pss = watched.wait_for("vm_memory_pss_bytes", mapped);
    let rss = watched.wait_for("vm_memory_rss_bytes", mapped);
    other.map_file(40 * MIB, &file).unwrap();
    let fallen = |from: f64, by: u64| move |value: f64| (from - by as f64 - value).abs() < SLACK;
    watched.wait_for("vm_memory_pss_bytes", fallen(pss, 20 * MIB));
    watched.wait_for("vm_memory_private_bytes", fallen(private, 40 * MIB));
    watched.wait_for("vm_memory_rss_bytes", fallen(rss, 0));
}

#[test]
fn storage_reads_writes_and_cancelled_writes_are_counted() {
    let mut watched = Watched::new("other");
    let before = ["read", "write", "cancelled_write"]
        .map(|what| watched.wait_for(&format!("vm_disk_{what}_bytes_total"), |_| true));
    let risen = |watched: &Watched, what: usize, name: &str, by: u64| {
        // A block or two of the file system's own come on top.
        let wanted = before[what] + by as f64;
        watched.wait_for(name, |value| value >= wanted && value < wanted + SLACK);
    };
    let file = watched.file("disk");
    watched.puppet.write(8 * MIB, true, &file).unwrap();
    risen(&watched, 1, "vm_disk_write_bytes_total", 8 * MIB);
    watched.puppet.read(&file).unwrap();
    risen(&watched, 0, "vm_disk_read_bytes_total", 8 * MIB);
    assert_eq!(watched.now("vm_disk_cancelled_write_bytes_total"), Some(before[2]));
}

#[test]
fn a_terminated_vm_keeps_counters_without_memory() {
    let mut watched = Watched::new("other");
    watched.wait_for("vm_memory_anon_bytes", |value| value > 0.0);
    watched.puppet.die().unwrap();
    let gone = |metrics: &Metrics| metrics.value("vm_memory_anon_bytes", &[]).is_none().then_some(());
    watched.daemon.wait_for(SOON + Duration::from_secs(10), "the end of its memory", gone).unwrap();
    for name in ["vm_memory_rss_bytes", "vm_memory_swap_bytes", "vm_memory_hugetlb_bytes"] {
        assert_eq!(watched.now(name), None, "{name} of a zombie");
    }
}

/// With an hour between two ticks: the end of the process calls for one, while its parent has not yet asked for it.
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
    // The kernel has it in clock ticks, too.
    let in_all = vm_metrics::read_proc_stat(puppet.pid()).unwrap() as f64 / 1e6;
    assert!(after >= before + 0.3 && (after - in_all).abs() < 0.05, "{before} {after} {in_all}");
}

const SECONDS: &str = "vm_vcpu_seconds_total";
const WAIT: &str = "vm_vcpu_wait_seconds_total";

#[test]
fn each_vcpu_has_its_threads_time() {
    let mut watched = Watched::new("qemu");
    let threads = ["CPU 0/TCG", "CPU 1/TCG", "worker"].map(|name| watched.puppet.start_thread(name).unwrap());
    let idle = ["0", "1"].map(|vcpu| watched.vcpu(SECONDS, vcpu, |_| true));
    watched.puppet.work(threads[1], 400).unwrap();
    watched.vcpu(SECONDS, "1", |value| (0.4..0.5).contains(&(value - idle[1])));
    watched.puppet.work(threads[0], 200).unwrap();
    watched.vcpu(SECONDS, "0", |value| (0.2..0.3).contains(&(value - idle[0])));
    watched.puppet.work(threads[2], 300).unwrap();
    watched.wait_for("vm_cpu_seconds_total", |value| value >= 0.9);
    let metrics = watched.daemon.metrics().unwrap();
    let sum: f64 = ["0", "1"].iter().map(|vcpu| metrics.value(SECONDS, &[("vcpu", vcpu)]).unwrap()).sum();
    let process = metrics.value("vm_cpu_seconds_total", &[]).unwrap();
    assert!(sum < 0.85 && sum <= process, "the vCPUs used {sum} of {process}");
}

#[test]
fn cpu_time_is_finer_than_a_clock_tick() {
    let mut watched = Watched::new("other");
    let thread = watched.puppet.start_thread("worker").unwrap();
    let is_fine = |_| {
        watched.puppet.work(thread, 3).unwrap();
        watched.tick();
        let in_ticks = watched.now("vm_cpu_seconds_total").unwrap() * 100.0;
        (in_ticks - in_ticks.round()).abs() > 0.01
    };
    assert!((0..20).any(is_fine), "every value is a number of ticks of 10 ms");
}

#[test]
fn a_replugged_vcpu_starts_at_zero() {
    let mut watched = Watched::new("cloud-hypervisor");
    let first = watched.puppet.start_thread("vcpu0").unwrap();
    watched.vcpu(SECONDS, "0", |_| true);
    let second = watched.puppet.start_thread("vcpu1").unwrap();
    watched.puppet.work(second, 300).unwrap();
    watched.vcpu(SECONDS, "1", |value| value >= 0.3);
    let process = watched.wait_for("vm_cpu_seconds_total", |value| value >= 0.3);

    watched.puppet.end_thread(second).unwrap();
    let gone = |metrics: &Metrics| metrics.value(SECONDS, &[("vcpu", "1")]).is_none().then_some(());
    watched.daemon.wait_for(SOON, "the end of the vCPU", gone).unwrap();
    assert!(watched.now("vm_cpu_seconds_total").unwrap() >= process, "the process keeps what its vCPU used");

    let again = watched.puppet.start_thread("vcpu1").unwrap();
    watched.puppet.work(again, 50).unwrap();
    watched.vcpu(SECONDS, "1", |value| (0.05..0.3).contains(&value));
    watched.puppet.work(first, 50).unwrap();
    watched.vcpu(SECONDS, "0", |value| value >= 0.05);
}

#[test]
fn a_replaced_vcpu_thread_is_found() {
    let mut watched = Watched::new("firecracker");
    for vcpu in ["0", "1", "2"] {
        let thread = watched.puppet.start_thread(&format!("fc_vcpu {vcpu}")).unwrap();
        watched.vcpu(SECONDS, vcpu, |_| true);
        // Most often within one tick: as many threads as before.
        watched.puppet.end_thread(thread).unwrap();
    }
}

#[test]
fn cpu_wait_never_falls_when_threads_end() {
    let mut watched = Watched::new("qemu");
    let mut rival = Puppet::start("processes::the_puppet").unwrap();
    let vcpu = watched.puppet.start_thread("CPU 0/KVM").unwrap();
    let worker = watched.puppet.start_thread("worker").unwrap();
    let before = watched.vcpu(WAIT, "0", |_| true);
    let rival_thread = rival.start_thread("rival").unwrap();
    // The same CPU for both, who share it: each waits about as long as it works.
    for puppet in [&mut watched.puppet, &mut rival] {
        puppet.pin(0).unwrap();
    }
    let rival = std::thread::spawn(move || rival.work(rival_thread, 500).map(|()| rival));
    watched.puppet.work(vcpu, 500).unwrap();
    let waited = watched.vcpu(WAIT, "0", |value| value - before > 0.1);
    let sum = watched.wait_for("vm_cpu_wait_seconds_total", |value| value >= waited);
    drop(rival.join().unwrap().unwrap());

    watched.puppet.end_thread(vcpu).unwrap();
    let gone = |metrics: &Metrics| metrics.value(WAIT, &[("vcpu", "0")]).is_none().then_some(());
    watched.daemon.wait_for(SOON, "the end of the vCPU", gone).unwrap();
    watched.puppet.end_thread(worker).unwrap();
    watched.tick();
    assert!(watched.now("vm_cpu_wait_seconds_total").unwrap() >= sum, "the sum fell");
}

#[test]
fn earlier_cpu_wait_is_not_counted_again() {
    let mut watched = Watched::new("qemu");
    let vcpu = watched.puppet.start_thread("CPU 0/KVM").unwrap();
    let mut rival = Puppet::start("processes::the_puppet").unwrap();
    let rival_thread = rival.start_thread("rival").unwrap();
    for puppet in [&mut watched.puppet, &mut rival] {
        puppet.pin(0).unwrap();
    }
    let rival = std::thread::spawn(move || rival.work(rival_thread, 300).map(|()| rival));
    watched.puppet.work(vcpu, 300).unwrap();
    drop(rival.join().unwrap().unwrap());
    let waited = watched.vcpu(WAIT, "0", |value| value > 0.05);
    watched.daemon = watch(watched.dir.path(), &watched.puppet, "qemu");
    assert!(watched.vcpu(WAIT, "0", |_| true) >= waited, "the thread's own count goes on");
    assert!(watched.now("vm_cpu_wait_seconds_total").unwrap() < waited / 2.0);
}

#[test]
fn threads_beyond_the_file_limit_are_reported() {
    let mut watched = Watched::new("qemu");
    watched.puppet.start_thread("CPU 0/KVM").unwrap();
    for _ in 0..60 {
        watched.puppet.start_thread("worker").unwrap();
    }
    let config = configure(watched.dir.path(), &watched.puppet, "qemu");
    watched.daemon = serve_with_files(112, &config);
    watched.vcpu(SECONDS, "0", |_| true);
    for name in
        ["vm_cpu_seconds_total", "vm_memory_rss_bytes", "vm_memory_anon_bytes", "vm_disk_read_bytes_total"]
    {
        assert!(watched.now(name).is_some(), "{name}");
    }
    assert_eq!(watched.now("vm_cpu_wait_seconds_total"), None, "a sum of some threads is no sum");
    let metrics = watched.daemon.metrics().unwrap();
    let degraded = [("component", "proc_threads"), ("state", "degraded")];
    assert_eq!(metrics.value("vm_exporter_component_health", &degraded), Some(1.0));
    let log = watched.daemon.log();
    assert!(log.contains("LimitNOFILE") && log.contains("are not read"), "{log}");
}
