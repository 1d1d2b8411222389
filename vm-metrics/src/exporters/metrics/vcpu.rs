//! Metrics of each vCPU.

use super::labels::{ID, Label, NAME, number};
use super::vm::seconds;
use super::{Kind, Metric, Real, SeriesGroup, Sink, SnapshotView, otel};
use crate::model::VcpuStats;

const VCPU: &[Label] = &[ID, NAME, number("vcpu", "cpu.logical_number")];

const ORIGIN: &str = "`/proc/<pid>/task/<tid>/schedstat`";

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "vcpu_seconds_total",
        group: SeriesGroup::Vcpus,
        kind: Kind::Counter,
        unit: "s",
        help: "CPU time of the vCPU's thread in seconds, since the vCPU was plugged in.",
        origin: ORIGIN,
        labels: VCPU,
        otel: otel("vcpu.time"),
        samples: Real(|view, sink| each(view, sink, |vcpu| vcpu.cpu_usec)),
    },
    Metric {
        name: "vcpu_wait_seconds_total",
        group: SeriesGroup::Vcpus,
        kind: Kind::Counter,
        unit: "s",
        help: "Time in which the vCPU was ready to run without a CPU of the host, in seconds: the guest's steal.",
        origin: ORIGIN,
        labels: VCPU,
        otel: otel("vcpu.wait_time"),
        samples: Real(|view, sink| each(view, sink, |vcpu| vcpu.wait_usec)),
    },
];

fn each(view: &SnapshotView<'_>, sink: Sink<'_, f64>, usec: impl Fn(&VcpuStats) -> u64) {
    for vm in view.vms() {
        for vcpu in &vm.vcpus {
            let labels = [vm.instance_id.as_str(), &vm.instance_name, &vcpu.vcpu.to_string()];
            sink(&labels, seconds(usec(vcpu)), vcpu.since);
        }
    }
}
