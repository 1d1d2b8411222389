//! The nine metrics of Go programs with the package `vm_metrics`, with the attributes that they have there.

use crate::exporters::View;
use crate::exporters::families::{self, Family};
use crate::exporters::metrics::{Group, Kind, Metric, Push, Shown};
use crate::model::{Snapshot, VmStats};

/// Metrics of a VM that `/metrics` has as they are.
const OF_VM: [&str; 5] = [
    "cpu_seconds_total",
    "allocated_vcpus",
    "memory_rss_bytes",
    "memory_vms_bytes",
    "allocated_memory_bytes",
];

/// Metrics of the label budget. In a program they have no name of an exporter, for there is only one, and count the VMs that
/// are there.
const OF_BUDGET: [(&str, &str); 2] = [
    ("metrics_instances_observed", "VMs that are there; beyond the label budget they are too many."),
    ("metrics_label_budget_exceeded_total", "How often the number of VMs went beyond the label budget."),
];

/// Metrics that `/metrics` has for each interface.
const OF_NETWORK: &[Group] = &[Group {
    title: "Network",
    prefix: None,
    metrics: &[
        of_network(
            "network_rx_bytes_total",
            "Bytes the guest received, all interfaces.",
            |snapshot, push| {
                sums(snapshot, push, |vm| vm.net_rx_bytes);
            },
        ),
        of_network("network_tx_bytes_total", "Bytes the guest sent, all interfaces.", |snapshot, push| {
            sums(snapshot, push, |vm| vm.net_tx_bytes);
        }),
    ],
}];

const fn of_network(name: &'static str, help: &'static str, samples: fn(&Shown<'_>, Push<'_>)) -> Metric {
    let labels = &["instance_id", "instance_name"];
    Metric { name, kind: Kind::Counter, help, origin: "computed", labels, samples }
}

/// The sum is unknown when one of its parts is.
fn sums(snapshot: &Shown<'_>, push: Push<'_>, sum: fn(&VmStats) -> Option<u64>) {
    for vm in snapshot.vms() {
        if let Some(bytes) = sum(vm) {
            push(&[&vm.instance_id, &vm.instance_name], bytes as f64, None);
        }
    }
}

/// The nine, without samples.
pub(super) fn names() -> Vec<Family> {
    let mut names = of_snapshot(families::names(), families::names_of(OF_NETWORK));
    names.extend(of_budget(families::names()));
    names
}

/// The nine of a snapshot, in the order of [`names`].
pub(super) fn look(view: &View, snapshot: &Snapshot) -> Vec<Family> {
    let of_vm = families::of_snapshot(snapshot);
    let network = families::of_groups(OF_NETWORK, snapshot);
    let mut families = view.fit(snapshot, false, of_snapshot(of_vm, network));
    families.extend(of_budget(view.of_exports()));
    families
}

fn of_snapshot(all: Vec<Family>, network: Vec<Family>) -> Vec<Family> {
    let is_basic = |family: &Family| OF_VM.contains(&family.name);
    all.into_iter().filter(is_basic).chain(network).collect()
}

fn of_budget(exports: Vec<Family>) -> Vec<Family> {
    let narrow = |mut family: Family| {
        let (_, help) = OF_BUDGET.iter().find(|(name, _)| *name == family.name)?;
        family.samples.iter_mut().for_each(|sample| sample.labels.clear());
        Some(Family { labels: &[], help, ..family })
    };
    exports.into_iter().filter_map(narrow).collect()
}
