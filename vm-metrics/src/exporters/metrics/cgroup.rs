//! Metrics of the control group (v2) that a VM's process is in.

use super::labels::{ID, NAME, VM, text};
use super::vm::seconds;
use super::{Count, Kind, Metric, Real, SeriesGroup, Sink, SnapshotView, otel};
use crate::model::CgroupStats;

/// Unknown: the kernel does not say when a group was made.
const SINCE: super::Since = None;

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "cgroup_cpu_periods_total",
        group: SeriesGroup::Cgroup,
        kind: Kind::Counter,
        unit: "{period}",
        help: "Periods of the control group's CPU limit in which it wanted to run; 0 without a limit.",
        origin: "`nr_periods` of `cpu.stat`",
        labels: VM,
        otel: otel("cgroup.cpu.periods"),
        samples: Count(|view, sink| each(view, sink, |group| group.cpu_periods)),
    },
    Metric {
        name: "cgroup_cpu_throttled_periods_total",
        group: SeriesGroup::Cgroup,
        kind: Kind::Counter,
        unit: "{period}",
        help: "Periods in which the control group reached its CPU limit and had to wait.",
        origin: "`nr_throttled` of `cpu.stat`",
        labels: VM,
        otel: otel("cgroup.cpu.throttled_periods"),
        samples: Count(|view, sink| each(view, sink, |group| group.cpu_throttled_periods)),
    },
    Metric {
        name: "cgroup_cpu_throttled_seconds_total",
        group: SeriesGroup::Cgroup,
        kind: Kind::Counter,
        unit: "s",
        help: "Time in which the control group waited because of its CPU limit, in seconds, summed over CPUs.",
        origin: "`throttled_usec` of `cpu.stat`",
        labels: VM,
        otel: otel("cgroup.cpu.throttled_time"),
        samples: Real(|view, sink| each(view, sink, |group| group.cpu_throttled_usec.map(seconds))),
    },
    Metric {
        name: "cgroup_pressure_seconds_total",
        group: SeriesGroup::Cgroup,
        kind: Kind::Counter,
        unit: "s",
        help: "Time in which tasks of the control group waited for the resource cpu, memory or io, in seconds; kind is some if at least one waited, full if all did.",
        origin: "`total` of `cpu.pressure`, `memory.pressure` and `io.pressure`",
        labels: &[ID, NAME, text("resource", "vm.cgroup.resource"), text("kind", "vm.cgroup.pressure.kind")],
        otel: otel("cgroup.pressure.time"),
        samples: Real(pressure),
    },
    Metric {
        name: "cgroup_oom_kills_total",
        group: SeriesGroup::Cgroup,
        kind: Kind::Counter,
        unit: "{process}",
        help: "Processes of the control group that the kernel killed for lack of memory.",
        origin: "`oom_kill` of `memory.events`",
        labels: VM,
        otel: otel("cgroup.oom_kills"),
        samples: Count(|view, sink| each(view, sink, |group| group.oom_kills)),
    },
    Metric {
        name: "cgroup_memory_bytes",
        group: SeriesGroup::Cgroup,
        kind: Kind::Amount,
        unit: "By",
        help: "Memory of the control group, page cache included, in bytes.",
        origin: "`memory.current`",
        labels: VM,
        otel: otel("cgroup.memory.usage"),
        samples: Count(|view, sink| each(view, sink, |group| group.memory_bytes)),
    },
    Metric {
        name: "cgroup_memory_limit_bytes",
        group: SeriesGroup::Cgroup,
        kind: Kind::Amount,
        unit: "By",
        help: "Memory limit of the control group, in bytes; absent without a limit of its own.",
        origin: "`memory.max`",
        labels: VM,
        otel: otel("cgroup.memory.limit"),
        samples: Count(|view, sink| each(view, sink, |group| group.memory_limit_bytes)),
    },
];

fn each<N>(view: &SnapshotView<'_>, sink: Sink<'_, N>, value: impl Fn(&CgroupStats) -> Option<N>) {
    for vm in view.vms() {
        if let Some(value) = vm.cgroup.as_ref().and_then(&value) {
            sink(&[&vm.instance_id, &vm.instance_name], value, SINCE);
        }
    }
}

fn pressure(view: &SnapshotView<'_>, sink: Sink<'_, f64>) {
    for vm in view.vms() {
        let Some(group) = &vm.cgroup else { continue };
        for (resource, pressure) in
            [("cpu", group.cpu_pressure), ("memory", group.memory_pressure), ("io", group.io_pressure)]
        {
            for (kind, usec) in [("some", pressure.some_usec), ("full", pressure.full_usec)] {
                if let Some(usec) = usec {
                    sink(&[&vm.instance_id, &vm.instance_name, resource, kind], seconds(usec), SINCE);
                }
            }
        }
    }
}
