//! Metrics of VMs that come and go, as the daemon has seen it.

use super::{Kind, Metric};

const ORIGIN: &str = "sources, `/proc/<pid>/stat`";

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "starts_total",
        kind: Kind::Counter,
        help: "VMs whose process started while the daemon ran.",
        origin: ORIGIN,
        labels: &["hypervisor"],
        samples: |snapshot, push| {
            for (hypervisor, counts) in snapshot.lifecycle().each() {
                push(&[hypervisor.as_str()], counts.starts as f64, snapshot.daemon_since());
            }
        },
    },
    Metric {
        name: "ends_total",
        kind: Kind::Counter,
        help: "VMs that ended while the daemon ran; reason is exited when the process ended, gone when no source lists the VM any more.",
        origin: ORIGIN,
        labels: &["hypervisor", "reason"],
        samples: |snapshot, push| {
            for (hypervisor, counts) in snapshot.lifecycle().each() {
                for (reason, count) in [("exited", counts.exited), ("gone", counts.gone)] {
                    push(&[hypervisor.as_str(), reason], count as f64, snapshot.daemon_since());
                }
            }
        },
    },
];
