//! Metrics of a VM as a whole.

use super::labels::{DIRECTION, HYPERVISOR, ID, NAME, VM, number, text};
use super::{Count, InstrumentKind, Kind, Metric, Real, SeriesGroup, Since, Sink, SnapshotView, otel};
use crate::model::{VmState, VmStats};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "info",
        group: SeriesGroup::Base,
        kind: Kind::Gauge,
        unit: "",
        help: "Always 1; the labels describe the VM.",
        origin: "sources",
        labels: &[
            ID,
            NAME,
            HYPERVISOR,
            number("pid", "process.pid"),
            text("project", "vm.project"),
            text("namespace", "k8s.namespace.name"),
            text("pod_uid", "k8s.pod.uid"),
        ],
        otel: otel("info"),
        samples: Count(|view, sink| {
            for vm in view.vms() {
                let pid = vm.hypervisor_pid.map(|pid| pid.to_string()).unwrap_or_default();
                let [project, namespace, pod] = [&vm.project, &vm.namespace, &vm.pod_uid]
                    .map(|label| label.as_deref().unwrap_or_default());
                let (id, name, hypervisor) = (&vm.instance_id, &vm.instance_name, vm.hypervisor.as_str());
                sink(&[id, name, hypervisor, &pid, project, namespace, pod], 1, None);
            }
        }),
    },
    Metric {
        name: "tag_info",
        group: SeriesGroup::Base,
        kind: Kind::Gauge,
        unit: "",
        help: "Always 1; a tag of the VM from its orchestrator, if the configuration names it.",
        origin: "sources",
        labels: &[ID, NAME, text("tag", "vm.tag.key"), text("value", "vm.tag.value")],
        otel: otel("tag.info"),
        samples: Count(|view, sink| {
            for vm in view.vms() {
                for (tag, value) in &vm.tags {
                    sink(&[&vm.instance_id, &vm.instance_name, tag, value], 1, None);
                }
            }
        }),
    },
    Metric {
        name: "restart_attempts",
        group: SeriesGroup::Base,
        kind: Kind::Gauge,
        unit: "{attempt}",
        help: "The orchestrator's attempts to start the VM again since it last ran well.",
        origin: "sources",
        labels: VM,
        otel: otel("restart.attempts"),
        samples: Count(|view, sink| each(view, sink, |vm| vm.restart_attempts)),
    },
    Metric {
        name: "network_limit_bytes_per_second",
        group: SeriesGroup::Base,
        kind: Kind::Gauge,
        unit: "By/s",
        help: "The orchestrator's limit of the VM's input (direction rx) and output (tx), in bytes per second.",
        origin: "sources",
        labels: &[ID, NAME, DIRECTION],
        otel: otel("network.limit"),
        samples: Count(|view, sink| {
            for vm in view.vms() {
                let limits = [
                    ("rx", vm.network_limit_rx_bytes_per_second),
                    ("tx", vm.network_limit_tx_bytes_per_second),
                ];
                for (direction, limit) in limits {
                    if let Some(limit) = limit {
                        sink(&[&vm.instance_id, &vm.instance_name, direction], limit, None);
                    }
                }
            }
        }),
    },
    Metric {
        name: "running",
        group: SeriesGroup::Base,
        kind: Kind::Gauge,
        unit: "",
        help: "1 while the VM is listed, 0 for a terminated VM, whose final numbers are shown.",
        origin: "sources",
        labels: VM,
        otel: otel("running").unit("{vm}").instrument(InstrumentKind::UpDownCounter),
        samples: Count(|view, sink| {
            for vm in view.vms_also_ended() {
                sink(&[&vm.instance_id, &vm.instance_name], u64::from(vm.running), None);
            }
        }),
    },
    Metric {
        name: "state",
        group: SeriesGroup::Base,
        kind: Kind::Gauge,
        unit: "",
        help: "1 for the present state of the vCPUs, 0 for the others: not-started, running, paused, stopped. From the last answer of the VMM, requested every 30 seconds.",
        origin: "sources",
        labels: &[ID, NAME, text("state", "vm.state")],
        otel: otel("status.state").unit("{vm}").instrument(InstrumentKind::UpDownCounter),
        samples: Count(|view, sink| {
            for vm in view.vms() {
                for state in VmState::ALL.into_iter().filter(|_| vm.state.is_some()) {
                    let is = u64::from(vm.state == Some(state));
                    sink(&[&vm.instance_id, &vm.instance_name, state.as_str()], is, None);
                }
            }
        }),
    },
    Metric {
        name: "start_time_seconds",
        group: SeriesGroup::Base,
        kind: Kind::Gauge,
        unit: "s",
        help: "Start of the hypervisor process and its CPU time, in seconds of Unix time.",
        origin: "`/proc/<pid>/stat`, `/proc/stat`",
        labels: VM,
        otel: otel("start_time"),
        samples: Real(|view, sink| each(view, sink, |vm| vm.start_time)),
    },
    Metric {
        name: "cpu_seconds_total",
        group: SeriesGroup::Base,
        kind: Kind::Counter,
        unit: "s",
        help: "CPU time of the hypervisor process in seconds, user and system, all threads.",
        origin: "CPU clock of the process, else `/proc/<pid>/stat`",
        labels: VM,
        otel: otel("cpu.time"),
        samples: Real(|view, sink| count(view, sink, |vm| vm.since.process, VmStats::cpu_seconds)),
    },
    Metric {
        name: "cpu_wait_seconds_total",
        group: SeriesGroup::Base,
        kind: Kind::Counter,
        unit: "s",
        help: "Time in which threads of the hypervisor process were ready to run without a CPU of the host, in seconds, all threads, since the daemon's first tick with the process.",
        origin: "`/proc/<pid>/task/<tid>/schedstat`",
        labels: VM,
        otel: otel("cpu.wait_time"),
        samples: Real(|view, sink| {
            count(view, sink, |vm| vm.since.cpu_wait, |vm| vm.process.cpu_wait_usec.map(seconds))
        }),
    },
    Metric {
        name: "allocated_vcpus",
        group: SeriesGroup::Base,
        kind: Kind::Amount,
        unit: "{vcpu}",
        help: "vCPUs of the VM.",
        origin: "sources",
        labels: VM,
        otel: otel("cpu.logical.count").unit("{cpu}"),
        samples: Count(|view, sink| each(view, sink, |vm| vm.allocated_vcpus.map(u64::from))),
    },
];

/// A gauge.
pub(super) fn each<N>(view: &SnapshotView<'_>, sink: Sink<'_, N>, value: impl Fn(&VmStats) -> Option<N>) {
    count(view, sink, |_| None, value);
}

pub(super) fn count<N>(
    view: &SnapshotView<'_>,
    sink: Sink<'_, N>,
    since: impl Fn(&VmStats) -> Since,
    value: impl Fn(&VmStats) -> Option<N>,
) {
    for vm in view.vms() {
        if let Some(value) = value(vm) {
            sink(&[&vm.instance_id, &vm.instance_name], value, since(vm));
        }
    }
}

pub(super) fn seconds(usec: u64) -> f64 {
    usec as f64 / 1e6
}
