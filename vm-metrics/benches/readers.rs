//! What each reader of processes costs per VM: `cargo bench -p vm-metrics --bench readers`. Compare the ratios; the times
//! are those of this machine.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench says what it found, and panics when it cannot"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use vm_metrics::app::App;
use vm_metrics::{Config, Purpose};
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
    let config = Config::parse(Path::new("bench.toml"), &config).unwrap();
    let manager = App::new(config).unwrap().into_manager(Purpose::Look).unwrap();
    // Files are opened and names looked at in the first ticks.
    let opening = durations(&manager.collect().components);
    (0..20).for_each(|_| drop(manager.collect()));
    let mut kept: BTreeMap<&str, Duration> = BTreeMap::new();
    for _ in 0..TICKS {
        for (name, duration) in durations(&manager.collect().components) {
            *kept.entry(name).or_default() += duration;
        }
    }
    let per_vm = |duration: Duration| duration.as_secs_f64() * 1e6 / VMS as f64;
    let unit = per_vm(kept["proc_stat"]) / TICKS as f64;
    println!("{VMS} VMs of {} threads; a tick, per VM", THREADS + 2);
    for (name, duration) in kept {
        let (first, then) = (per_vm(opening[name]), per_vm(duration) / TICKS as f64);
        println!("{name:13} {then:6.1} µs = {:4.1} × proc_stat; the first tick {first:6.1} µs", then / unit);
    }
}

fn durations(parts: &[vm_metrics::ComponentRun]) -> BTreeMap<&'static str, Duration> {
    let of_processes = parts.iter().filter(|part| part.name.starts_with("proc_"));
    of_processes.filter_map(|part| Some((part.name, part.duration?))).collect()
}
