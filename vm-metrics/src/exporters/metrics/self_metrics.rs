//! Metrics of the daemon itself: its build, its ticks and its VMs.

use super::{Convention, Count, Kind, Metric, Real, Samples, SeriesGroup, labels::text, otel};
use crate::model::unix_seconds;

const COMPUTED: &str = "computed";

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "build_info",
        group: SeriesGroup::Base,
        kind: Kind::Gauge,
        unit: "",
        help: "Always 1; version and build of this binary.",
        origin: "build",
        labels: &[text("version", "service.version"), text("ebpf", "vm.exporter.ebpf")],
        otel: otel("build.info"),
        samples: Count(|_, sink| {
            let ebpf = if cfg!(feature = "ebpf") { "true" } else { "false" };
            sink(&[env!("CARGO_PKG_VERSION"), ebpf], 1, None);
        }),
    },
    Metric {
        name: "instances",
        group: SeriesGroup::Base,
        kind: Kind::Amount,
        unit: "{instance}",
        help: "Listed VMs.",
        origin: COMPUTED,
        labels: &[],
        otel: otel("instance.count"),
        samples: Count(|view, sink| sink(&[], view.vms().count() as u64, None)),
    },
    counter(
        "ticks_total",
        "{tick}",
        "Ticks that ended.",
        otel("tick.count"),
        Count(|view, sink| sink(&[], view.tick(), view.daemon_since())),
    ),
    counter(
        "ticks_late_total",
        "{tick}",
        "Ticks that began late because the previous tick was still running.",
        otel("tick.late"),
        Count(|view, sink| sink(&[], view.missed().ticks, view.daemon_since())),
    ),
    counter(
        "gap_seconds_total",
        "s",
        "Time by which ticks began too late: what came and went meanwhile may be missing.",
        otel("gap.time"),
        Real(|view, sink| sink(&[], view.missed().by.as_secs_f64(), view.daemon_since())),
    ),
    counter(
        "tick_duration_seconds_total",
        "s",
        "Time that all ticks took: listing, reading and merging.",
        otel("tick.time"),
        Real(|view, sink| sink(&[], view.ticks_duration().as_secs_f64(), view.daemon_since())),
    ),
    Metric {
        name: "snapshot_timestamp_seconds",
        group: SeriesGroup::Base,
        kind: Kind::Gauge,
        unit: "s",
        help: "End of the last tick, and time of its numbers, in seconds of Unix time.",
        origin: COMPUTED,
        labels: &[],
        otel: otel("snapshot.timestamp"),
        samples: Real(|view, sink| sink(&[], unix_seconds(view.taken_at()), None)),
    },
];

const fn counter(
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    otel: Convention,
    samples: Samples,
) -> Metric {
    super::counter(name, unit, help, COMPUTED, &[], otel, samples)
}
