//! vCPU threads of real processes: their CPU time and their waiting.

use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::puppet::Puppet;
use vm_metrics_testkit::wait::SOON;

use super::{PuppetVm, configure, watch};
use crate::fixture::serve_with_files;

const SECONDS: &str = "vm_vcpu_seconds_total";
const WAIT: &str = "vm_vcpu_wait_seconds_total";

#[test]
fn each_vcpu_has_its_threads_time() {
    let mut vm = PuppetVm::new("qemu");
    let threads = ["CPU 0/TCG", "CPU 1/TCG", "worker"].map(|name| vm.puppet.start_thread(name).unwrap());
    let idle = ["0", "1"].map(|vcpu| vm.vcpu(SECONDS, vcpu, |_| true));
    vm.puppet.work(threads[1], 400).unwrap();
    vm.vcpu(SECONDS, "1", |value| (0.4..0.5).contains(&(value - idle[1])));
    vm.puppet.work(threads[0], 200).unwrap();
    vm.vcpu(SECONDS, "0", |value| (0.2..0.3).contains(&(value - idle[0])));
    vm.puppet.work(threads[2], 300).unwrap();
    vm.wait_for("vm_cpu_seconds_total", |value| value >= 0.9);
    let metrics = vm.daemon.metrics().unwrap();
    let sum: f64 = ["0", "1"].iter().map(|vcpu| metrics.value(SECONDS, &[("vcpu", vcpu)]).unwrap()).sum();
    let process = metrics.value("vm_cpu_seconds_total", &[]).unwrap();
    assert!(sum < 0.85 && sum <= process, "the vCPUs used {sum} of {process}");
}

#[test]
fn a_replugged_vcpu_starts_at_zero() {
    let mut vm = PuppetVm::new("cloud-hypervisor");
    let first = vm.puppet.start_thread("vcpu0").unwrap();
    vm.vcpu(SECONDS, "0", |_| true);
    let second = vm.puppet.start_thread("vcpu1").unwrap();
    vm.puppet.work(second, 300).unwrap();
    vm.vcpu(SECONDS, "1", |value| value >= 0.3);
    let process = vm.wait_for("vm_cpu_seconds_total", |value| value >= 0.3);

    vm.puppet.end_thread(second).unwrap();
    let gone = |metrics: &Metrics| metrics.value(SECONDS, &[("vcpu", "1")]).is_none().then_some(());
    vm.daemon.wait_for(SOON, "the end of the vCPU", gone).unwrap();
    assert!(vm.now("vm_cpu_seconds_total").unwrap() >= process, "the process keeps the time of its vCPU");

    let again = vm.puppet.start_thread("vcpu1").unwrap();
    vm.puppet.work(again, 50).unwrap();
    vm.vcpu(SECONDS, "1", |value| (0.05..0.3).contains(&value));
    vm.puppet.work(first, 50).unwrap();
    vm.vcpu(SECONDS, "0", |value| value >= 0.05);
}

#[test]
fn a_replaced_vcpu_thread_is_found() {
    let mut vm = PuppetVm::new("firecracker");
    for vcpu in ["0", "1", "2"] {
        let thread = vm.puppet.start_thread(&format!("fc_vcpu {vcpu}")).unwrap();
        vm.vcpu(SECONDS, vcpu, |_| true);
        // Mostly within one tick, so the number of threads stays the same.
        vm.puppet.end_thread(thread).unwrap();
    }
}

#[test]
fn cpu_wait_never_falls_when_threads_end() {
    let mut vm = PuppetVm::new("qemu");
    let mut rival = Puppet::start("processes::the_puppet").unwrap();
    let vcpu = vm.puppet.start_thread("CPU 0/KVM").unwrap();
    let worker = vm.puppet.start_thread("worker").unwrap();
    let before = vm.vcpu(WAIT, "0", |_| true);
    let rival_thread = rival.start_thread("rival").unwrap();
    // Both share one CPU, so each waits about as long as it works.
    for puppet in [&mut vm.puppet, &mut rival] {
        puppet.pin(0).unwrap();
    }
    let rival = std::thread::spawn(move || rival.work(rival_thread, 500).map(|()| rival));
    vm.puppet.work(vcpu, 500).unwrap();
    let waited = vm.vcpu(WAIT, "0", |value| value - before > 0.1);
    let sum = vm.wait_for("vm_cpu_wait_seconds_total", |value| value >= waited);
    drop(rival.join().unwrap().unwrap());

    vm.puppet.end_thread(vcpu).unwrap();
    let gone = |metrics: &Metrics| metrics.value(WAIT, &[("vcpu", "0")]).is_none().then_some(());
    vm.daemon.wait_for(SOON, "the end of the vCPU", gone).unwrap();
    vm.puppet.end_thread(worker).unwrap();
    vm.tick();
    assert!(vm.now("vm_cpu_wait_seconds_total").unwrap() >= sum, "the sum fell");
}

#[test]
fn earlier_cpu_wait_is_not_counted_again() {
    let mut vm = PuppetVm::new("qemu");
    let vcpu = vm.puppet.start_thread("CPU 0/KVM").unwrap();
    let mut rival = Puppet::start("processes::the_puppet").unwrap();
    let rival_thread = rival.start_thread("rival").unwrap();
    for puppet in [&mut vm.puppet, &mut rival] {
        puppet.pin(0).unwrap();
    }
    let rival = std::thread::spawn(move || rival.work(rival_thread, 300).map(|()| rival));
    vm.puppet.work(vcpu, 300).unwrap();
    drop(rival.join().unwrap().unwrap());
    let waited = vm.vcpu(WAIT, "0", |value| value > 0.05);
    vm.daemon = watch(vm.dir.path(), &vm.puppet, "qemu");
    assert!(vm.vcpu(WAIT, "0", |_| true) >= waited, "the thread's own count goes on");
    assert!(vm.now("vm_cpu_wait_seconds_total").unwrap() < waited / 2.0);
}

#[test]
fn threads_beyond_the_file_limit_are_reported() {
    let mut vm = PuppetVm::new("qemu");
    vm.puppet.start_thread("CPU 0/KVM").unwrap();
    for _ in 0..60 {
        vm.puppet.start_thread("worker").unwrap();
    }
    let config = configure(vm.dir.path(), &vm.puppet, "qemu");
    vm.daemon = serve_with_files(112, &config);
    vm.vcpu(SECONDS, "0", |_| true);
    for name in
        ["vm_cpu_seconds_total", "vm_memory_rss_bytes", "vm_memory_anon_bytes", "vm_disk_read_bytes_total"]
    {
        assert!(vm.now(name).is_some(), "{name}");
    }
    assert_eq!(vm.now("vm_cpu_wait_seconds_total"), None, "a sum of some threads is no sum");
    let metrics = vm.daemon.metrics().unwrap();
    let degraded = [("component", "proc_threads"), ("state", "degraded")];
    assert_eq!(metrics.value("vm_exporter_component_health", &degraded), Some(1.0));
    let log = vm.daemon.log();
    assert!(log.contains("LimitNOFILE") && log.contains("are not read"), "{log}");
}
