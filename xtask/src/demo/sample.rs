//! A scrape of the daemon, and rates between two scrapes.
//!
//! Unpublished values stay unknown.

use std::time::Instant;

use anyhow::Result;
use vm_metrics_testkit::{daemon::Daemon, metrics_text::Metrics};

use super::{config::DemoVm, table::Row};

const BITS: f64 = 8.0;
const PERCENT: f64 = 100.0;

#[derive(Debug)]
pub struct Sample {
    metrics: Metrics,
    at: Instant,
}

impl Sample {
    pub fn take(daemon: &Daemon) -> Result<Self> {
        Ok(Self { metrics: daemon.metrics()?, at: Instant::now() })
    }
}

/// Returns the rates of a VM between two samples.
pub fn row(vm: &DemoVm, before: &Sample, now: &Sample) -> Row {
    let of_vm = [("instance_id", vm.id.as_str())];
    let of_nic = [("instance_id", vm.id.as_str()), ("device", vm.tap())];
    let nic_rate = |name| rate(name, &of_nic, before, now);
    let source = ["ebpf", "netlink", "sysfs"].into_iter().find(|source| {
        let labels = [("device", vm.tap()), ("source", *source)];
        now.metrics.value("vm_network_source_info", &labels) == Some(1.0)
    });
    Row {
        vm: vm.name.clone(),
        tap: vm.tap().to_owned(),
        source,
        rx_packets: nic_rate("vm_network_rx_packets_total"),
        rx_bits: nic_rate("vm_network_rx_bytes_total").map(|bytes| bytes * BITS),
        tx_packets: nic_rate("vm_network_tx_packets_total"),
        tx_bits: nic_rate("vm_network_tx_bytes_total").map(|bytes| bytes * BITS),
        cpu_percent: rate("vm_cpu_seconds_total", &of_vm, before, now).map(|cpus| cpus * PERCENT),
        rss_bytes: now.metrics.value("vm_memory_rss_bytes", &of_vm),
    }
}

fn rate(name: &str, labels: &[(&str, &str)], before: &Sample, now: &Sample) -> Option<f64> {
    let increase = now.metrics.value(name, labels)? - before.metrics.value(name, labels)?;
    Some(increase / now.at.duration_since(before.at).as_secs_f64())
}
