//! Measures the cost of each reader of processes per VM.
//!
//! `cargo bench -p vm-metrics --bench readers`. Compare the ratios; the times are those of this machine. As root, `task_iter`
//! is compared with the readers of `/proc`, in rounds that take turns.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench says what it found, and panics when it cannot"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use vm_metrics::app::App;
use vm_metrics::{Config, Manager, Purpose};
use vm_metrics_testkit::puppet::{self, Puppet};

const VMS: usize = 40;
/// Besides the main one and the one that libtest would need.
const THREADS: usize = 6;
const TICKS: u64 = 200;

fn main() {
    puppet::run_if_asked().unwrap();
    let mut puppets: Vec<Puppet> = (0..VMS).map(|_| Puppet::start("bench").unwrap()).collect();
    let mut config = String::from("[sources.proc_scan]\nenabled = false\n");
    for (index, puppet) in puppets.iter_mut().enumerate() {
        for thread in 0..THREADS {
            puppet.start_thread(&format!("CPU {thread}/KVM")).unwrap();
        }
        let pid = puppet.pid();
        config +=
            &format!("[[sources.static_list.vms]]\nid = \"{index}\"\npid = {pid}\nhypervisor = \"qemu\"\n");
    }
    println!("{VMS} VMs of {} threads; a tick, per VM", THREADS + 2);
    let mut files = Measured::new(&config);
    let mut iterator = Measured::new(&format!("{config}[readers.task_iter]\nenabled = true\n"));
    for _ in 0..TICKS {
        files.tick();
        iterator.tick();
    }
    files.print("by files");
    iterator.print("by the iterator");
    let ratio = files.cpu.as_secs_f64() / iterator.cpu.as_secs_f64();
    println!("the tick: {ratio:.1} times less CPU by the iterator");
}

/// A manager, and the time of its ticks.
struct Measured {
    manager: Manager,
    opening: BTreeMap<&'static str, Duration>,
    then: BTreeMap<&'static str, Duration>,
    /// CPU time of all threads, for whole ticks.
    cpu: Duration,
}

impl Measured {
    fn new(config: &str) -> Self {
        let config = Config::parse(Path::new("bench.toml"), config).unwrap();
        let manager = App::new(config).unwrap().into_manager(Purpose::Look).unwrap();
        // Files are opened and names looked at in the first ticks.
        let opening = durations(&manager.collect().components);
        (0..20).for_each(|_| drop(manager.collect()));
        Self { manager, opening, then: BTreeMap::new(), cpu: Duration::ZERO }
    }

    fn tick(&mut self) {
        let before = cpu_time();
        let snapshot = self.manager.collect();
        self.cpu += cpu_time() - before;
        for (name, duration) in durations(&snapshot.components) {
            *self.then.entry(name).or_default() += duration;
        }
    }

    fn print(&self, title: &str) {
        let per_vm = |duration: Duration| duration.as_secs_f64() * 1e6 / VMS as f64;
        println!("{title}: CPU {:.1} µs", per_vm(self.cpu) / TICKS as f64);
        for (name, duration) in &self.then {
            let (first, then) = (per_vm(self.opening[name]), per_vm(*duration) / TICKS as f64);
            println!("    {name:13} {then:6.1} µs; the first tick {first:6.1} µs");
        }
    }
}

fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap()
}

fn durations(parts: &[vm_metrics::ComponentRun]) -> BTreeMap<&'static str, Duration> {
    let of_processes = parts.iter().filter(|part| part.name.starts_with("proc_") || part.name == "task_iter");
    of_processes.filter_map(|part| Some((part.name, part.duration?))).collect()
}
