//! Metrics of the control group (v2) that a VM's process is in.

use super::vm::{VM, as_f64, seconds};
use super::{Kind, Metric, Push, Shown};
use crate::model::CgroupStats;

/// Nobody knows since when a group counts: the kernel does not tell when it was made.
const SINCE: super::Since = None;

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "cgroup_cpu_periods_total",
        kind: Kind::Counter,
        help: "Periods of the control group's CPU limit in which it wanted to run; 0 without a limit.",
        origin: "`nr_periods` of `cpu.stat`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |group| group.cpu_periods.map(as_f64)),
    },
    Metric {
        name: "cgroup_cpu_throttled_periods_total",
        kind: Kind::Counter,
        help: "Of these periods, those in which the control group reached its CPU limit and had to wait.",
        origin: "`nr_throttled` of `cpu.stat`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |group| group.cpu_throttled_periods.map(as_f64)),
    },
    Metric {
        name: "cgroup_cpu_throttled_seconds_total",
        kind: Kind::Counter,
        help: "Time that the control group had to wait because of its CPU limit, in seconds, added up over CPUs.",
        origin: "`throttled_usec` of `cpu.stat`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |group| group.cpu_throttled_usec.map(seconds)),
    },
    Metric {
        name: "cgroup_pressure_seconds_total",
        kind: Kind::Counter,
        help: "Time in seconds that tasks of the control group waited for the resource cpu, memory or io; kind is some when at least one waited, full when all did.",
        origin: "`total` of `cpu.pressure`, `memory.pressure` and `io.pressure`",
        labels: &["instance_id", "instance_name", "resource", "kind"],
        samples: pressure,
    },
    Metric {
        name: "cgroup_oom_kills_total",
        kind: Kind::Counter,
        help: "Processes of the control group that the kernel killed for want of memory.",
        origin: "`oom_kill` of `memory.events`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |group| group.oom_kills.map(as_f64)),
    },
    Metric {
        name: "cgroup_memory_bytes",
        kind: Kind::Gauge,
        help: "Memory that counts for the control group, page cache included, in bytes.",
        origin: "`memory.current`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |group| group.memory_bytes.map(as_f64)),
    },
    Metric {
        name: "cgroup_memory_limit_bytes",
        kind: Kind::Gauge,
        help: "Memory that the control group may have at most, in bytes; not without a limit of its own.",
        origin: "`memory.max`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |group| group.memory_limit_bytes.map(as_f64)),
    },
];

fn each(snapshot: &Shown<'_>, push: Push<'_>, value: impl Fn(&CgroupStats) -> Option<f64>) {
    for vm in snapshot.vms() {
        if let Some(value) = vm.cgroup.as_ref().and_then(&value) {
            push(&[&vm.instance_id, &vm.instance_name], value, SINCE);
        }
    }
}

fn pressure(snapshot: &Shown<'_>, push: Push<'_>) {
    for vm in snapshot.vms() {
        let Some(group) = &vm.cgroup else { continue };
        for (resource, pressure) in
            [("cpu", group.cpu_pressure), ("memory", group.memory_pressure), ("io", group.io_pressure)]
        {
            for (kind, usec) in [("some", pressure.some_usec), ("full", pressure.full_usec)] {
                if let Some(usec) = usec {
                    push(&[&vm.instance_id, &vm.instance_name, resource, kind], seconds(usec), SINCE);
                }
            }
        }
    }
}
