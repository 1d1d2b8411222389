//! Every metric as one entry, in groups, in the order of the output.
//!
//! All formats and the tables of the documentation follow from the entries. A new metric is one entry in a file here.

mod cgroup;
mod component_metrics;
mod drops;
mod ebpf;
mod entry;
pub mod exporter_stats;
mod kind;
pub mod labels;
mod lifecycle;
mod memory;
pub mod nic;
mod nic_info;
mod number;
mod process;
mod self_metrics;
mod series_group;
mod snapshot_view;
mod vcpu;
mod vm;

use Samples::{Count, Difference, Real};
pub use entry::{Attribute, Convention, InstrumentKind, Metric, Samples, Sink, counter, otel, shared};
pub use kind::Kind;
pub use number::{Number, Since};
pub use series_group::SeriesGroup;
pub use snapshot_view::SnapshotView;

/// A group of metrics with one prefix.
#[derive(Debug)]
pub struct Group {
    #[cfg_attr(not(test), expect(dead_code, reason = "the documentation has it"))]
    pub title: &'static str,
    /// `None`: the configured one.
    pub prefix: Option<&'static str>,
    /// In the order of the output, file by file.
    pub files: &'static [&'static [Metric]],
}

impl Group {
    pub fn metrics(&self) -> impl Iterator<Item = &'static Metric> {
        self.files.iter().copied().flatten()
    }
}

/// The metrics of a snapshot, in the order of the output.
pub const GROUPS: &[Group] = &[
    Group { title: "VMs", prefix: None, files: &[vm::METRICS, memory::METRICS] },
    Group { title: "Processes of VMs", prefix: None, files: &[process::METRICS] },
    Group { title: "vCPUs", prefix: None, files: &[vcpu::METRICS] },
    Group { title: "Control groups", prefix: None, files: &[cgroup::METRICS] },
    Group {
        title: "Network interfaces",
        prefix: None,
        files: &[nic::TRAFFIC, drops::METRICS, nic::BACKLOG, ebpf::METRICS, nic_info::METRICS],
    },
    Group { title: "VMs that come and go", prefix: None, files: &[lifecycle::METRICS] },
    Group {
        title: "The daemon itself",
        prefix: Some(OWN_PREFIX),
        files: &[self_metrics::METRICS, component_metrics::METRICS],
    },
];

/// Metrics of the exporters themselves. They also change between two snapshots.
pub const EXPORTER_GROUPS: &[Group] = &[
    Group { title: "Label budgets", prefix: None, files: &[exporter_stats::BUDGETS] },
    Group { title: "The push", prefix: Some(OWN_PREFIX), files: &[exporter_stats::PUSHES] },
];

/// First part of the names of the daemon's own metrics, whatever the configured prefix is.
const OWN_PREFIX: &str = "vm_exporter";

/// The prefix of the Go package. Dashboards know its `…_metrics_…`, which are the daemon's own metrics, by that name.
const GO_PREFIX: &str = "hypeman_vm";

/// The exported name of a metric in a group with this prefix, where `configured` is the one of VM metrics.
pub fn full_name(of_group: Option<&str>, configured: &str, name: &str) -> String {
    match (of_group, name.strip_prefix("metrics_")) {
        (None, Some(own)) if configured != GO_PREFIX => format!("{OWN_PREFIX}_{own}"),
        _ => format!("{}_{name}", of_group.unwrap_or(configured)),
    }
}

#[cfg(test)]
pub(crate) mod tests;
