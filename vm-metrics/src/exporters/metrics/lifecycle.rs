//! Metrics of VMs that start and end while the daemon runs.

use super::labels::{HYPERVISOR, text};
use super::{Count, Kind, Metric, SeriesGroup, otel};

const ORIGIN: &str = "sources, `/proc/<pid>/stat`";

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "starts_total",
        group: SeriesGroup::Base,
        kind: Kind::Counter,
        unit: "{vm}",
        help: "VMs whose process started while the daemon ran.",
        origin: ORIGIN,
        labels: &[HYPERVISOR],
        otel: otel("starts"),
        samples: Count(|view, sink| {
            for (hypervisor, counts) in view.lifecycle().each() {
                sink(&[hypervisor.as_str()], counts.starts, view.daemon_since());
            }
        }),
    },
    Metric {
        name: "ends_total",
        group: SeriesGroup::Base,
        kind: Kind::Counter,
        unit: "{vm}",
        help: "VMs that ended while the daemon ran; reason is exited if the process ended, gone if no source lists the VM any more.",
        origin: ORIGIN,
        labels: &[HYPERVISOR, text("reason", "vm.end.reason")],
        otel: otel("ends"),
        samples: Count(|view, sink| {
            for (hypervisor, counts) in view.lifecycle().each() {
                for (reason, count) in [("exited", counts.exited), ("gone", counts.gone)] {
                    sink(&[hypervisor.as_str(), reason], count, view.daemon_since());
                }
            }
        }),
    },
];
