//! The nine metrics that Go programs with the package `vm_metrics` show.

use crate::exporters::View;
use crate::exporters::families::{self, Family};
use crate::exporters::metrics::labels::VM;
use crate::exporters::metrics::{Group, Metric, Samples, Sink, SnapshotView, exporter_stats, nic};
use crate::model::{Snapshot, VmStats};

/// Metrics of a VM that `/metrics` has as they are.
const OF_VM: [&str; 5] = [
    "cpu_seconds_total",
    "allocated_vcpus",
    "memory_rss_bytes",
    "memory_vms_bytes",
    "allocated_memory_bytes",
];

/// Metrics that `/metrics` has for each interface.
const OF_NETWORK: &[Group] = &[Group {
    title: "Network",
    prefix: None,
    files: &[&[
        Metric {
            help: "Bytes the guest received, all interfaces.",
            labels: VM,
            samples: Samples::Count(|view, sink| sums(view, sink, |vm| vm.net_rx_bytes)),
            ..nic::RX_BYTES
        },
        Metric {
            help: "Bytes the guest sent, all interfaces.",
            labels: VM,
            samples: Samples::Count(|view, sink| sums(view, sink, |vm| vm.net_tx_bytes)),
            ..nic::TX_BYTES
        },
    ]],
}];

/// Metrics of the label budget. A program has one exporter, so they have no label for it; they count the running VMs.
const OF_BUDGET: &[Group] = &[Group {
    title: "Label budget",
    prefix: None,
    files: &[&[
        Metric {
            help: "VMs that are there; beyond the label budget they are too many.",
            labels: &[],
            samples: Samples::Count(|view, sink| {
                let observed = view.exporters().budgets().filter_map(exporter_stats::observed);
                observed.for_each(|vms| sink(&[], vms, None));
            }),
            ..exporter_stats::OBSERVED
        },
        Metric {
            help: "How often the number of VMs went beyond the label budget.",
            labels: &[],
            samples: Samples::Count(|view, sink| {
                let exceeded = view.exporters().budgets().map(|budget| budget.exceeded());
                exceeded.for_each(|times| sink(&[], times, view.exporters().started()));
            }),
            ..exporter_stats::EXCEEDED
        },
    ]],
}];

/// The sum is unknown when one of its parts is.
fn sums(view: &SnapshotView<'_>, sink: Sink<'_, u64>, sum: fn(&VmStats) -> Option<u64>) {
    for vm in view.vms() {
        if let Some(bytes) = sum(vm) {
            sink(&[&vm.instance_id, &vm.instance_name], bytes, None);
        }
    }
}

/// The nine, without samples.
pub(super) fn names() -> Vec<Family> {
    let of_vm = families::names().into_iter().filter(is_basic);
    of_vm.chain([OF_NETWORK, OF_BUDGET].into_iter().flat_map(families::without_samples)).collect()
}

/// The nine of a snapshot, in the order of [`names`].
pub(super) fn look(view: &View, snapshot: &Snapshot) -> Vec<Family> {
    let all = || {
        let of_vm = families::of_snapshot(snapshot).into_iter().filter(is_basic);
        of_vm.chain(view.of_groups(OF_NETWORK, snapshot)).collect::<Vec<_>>()
    };
    let mut families = view.fitted(snapshot, all).unwrap_or_else(all);
    families.extend(view.of_groups(OF_BUDGET, snapshot));
    families
}

fn is_basic(family: &Family) -> bool {
    OF_VM.contains(&family.metric.name)
}
