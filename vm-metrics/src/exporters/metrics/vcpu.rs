//! Metrics of each vCPU.

use super::vm::seconds;
use super::{Kind, Metric, Push, Shown};
use crate::model::VcpuStats;

const VCPU: &[&str] = &["instance_id", "instance_name", "vcpu"];

const ORIGIN: &str = "`/proc/<pid>/task/<tid>/schedstat`";

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "vcpu_seconds_total",
        kind: Kind::Counter,
        help: "CPU time of the vCPU's thread in seconds, since the vCPU was put in.",
        origin: ORIGIN,
        labels: VCPU,
        samples: |snapshot, push| each(snapshot, push, |vcpu| vcpu.cpu_usec),
    },
    Metric {
        name: "vcpu_wait_seconds_total",
        kind: Kind::Counter,
        help: "Time that the vCPU was ready to run and had no CPU of the host, in seconds: what the guest calls steal.",
        origin: ORIGIN,
        labels: VCPU,
        samples: |snapshot, push| each(snapshot, push, |vcpu| vcpu.wait_usec),
    },
];

fn each(snapshot: &Shown<'_>, push: Push<'_>, usec: impl Fn(&VcpuStats) -> u64) {
    for vm in snapshot.vms() {
        for vcpu in &vm.vcpus {
            let labels = [vm.instance_id.as_str(), &vm.instance_name, &vcpu.vcpu.to_string()];
            push(&labels, seconds(usec(vcpu)), vcpu.since);
        }
    }
}
