//! Metrics of a VM as a whole.

use super::{Kind, Metric, Push};
use crate::model::{Snapshot, VmStats};

const VM: &[&str] = &["instance_id", "instance_name"];

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "info",
        kind: Kind::Gauge,
        help: "Always 1; what is known of the VM is in the labels.",
        origin: "sources",
        labels: &["instance_id", "instance_name", "hypervisor", "pid"],
        samples: |snapshot, push| {
            for vm in &snapshot.vms {
                let pid = vm.hypervisor_pid.map(|pid| pid.to_string()).unwrap_or_default();
                push(&[&vm.instance_id, &vm.instance_name, vm.hypervisor.as_str(), &pid], 1.0);
            }
        },
    },
    Metric {
        name: "up",
        kind: Kind::Gauge,
        help: "1 while the VM is there, 0 while the last numbers of one that is gone are shown.",
        origin: "sources",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| Some(if vm.running { 1.0 } else { 0.0 })),
    },
    Metric {
        name: "start_time_seconds",
        kind: Kind::Gauge,
        help: "When the hypervisor process started, in seconds of Unix time: from then on its CPU time counts.",
        origin: "`/proc/<pid>/stat`, `/proc/stat`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.start_time),
    },
    Metric {
        name: "cpu_seconds_total",
        kind: Kind::Counter,
        help: "CPU time of the hypervisor process in seconds, user and system, all threads.",
        origin: "`/proc/<pid>/stat`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, VmStats::cpu_seconds),
    },
    Metric {
        name: "allocated_vcpus",
        kind: Kind::Gauge,
        help: "vCPUs the VM was given.",
        origin: "sources",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.allocated_vcpus.map(f64::from)),
    },
    Metric {
        name: "memory_rss_bytes",
        kind: Kind::Gauge,
        help: "Resident memory of the hypervisor process in bytes, without hugetlb pages.",
        origin: "`/proc/<pid>/statm`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.memory_rss_bytes.map(as_f64)),
    },
    Metric {
        name: "memory_vms_bytes",
        kind: Kind::Gauge,
        help: "Virtual memory of the hypervisor process in bytes.",
        origin: "`/proc/<pid>/statm`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.memory_vms_bytes.map(as_f64)),
    },
    Metric {
        name: "allocated_memory_bytes",
        kind: Kind::Gauge,
        help: "Memory the VM was given, in bytes.",
        origin: "sources",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.allocated_memory_bytes.map(as_f64)),
    },
    Metric {
        name: "memory_utilization_ratio",
        kind: Kind::Gauge,
        help: "Resident divided by allocated memory; exceeds 1 when the hypervisor needs much of its own.",
        origin: "computed",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, VmStats::memory_utilization_ratio),
    },
];

fn each(snapshot: &Snapshot, push: Push<'_>, value: impl Fn(&VmStats) -> Option<f64>) {
    for vm in &snapshot.vms {
        if let Some(value) = value(vm) {
            push(&[&vm.instance_id, &vm.instance_name], value);
        }
    }
}

fn as_f64(value: u64) -> f64 {
    value as f64
}
