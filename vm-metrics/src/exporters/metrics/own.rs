//! Metrics of the daemon itself: whether its other numbers can be trusted, and what they cost.

use super::nic::{NIC, netns};
use super::{Kind, Metric, OfSnapshot, Push, Shown, Since};
use crate::model::{ComponentKind, ComponentRun, ComponentTotals, Health, Overuse, unix_seconds};

const COMPUTED: &str = "computed";

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "build_info",
        kind: Kind::Gauge,
        help: "Always 1; what this binary is.",
        origin: "build",
        labels: &["version", "ebpf"],
        samples: |_, push| {
            let ebpf = if cfg!(feature = "ebpf") { "true" } else { "false" };
            push(&[env!("CARGO_PKG_VERSION"), ebpf], 1.0, None);
        },
    },
    gauge("instances", "VMs that are there.", |snapshot, push| {
        push(&[], snapshot.vms().count() as f64, None);
    }),
    counter("ticks_total", "Ticks that ended.", |snapshot, push| {
        push(&[], snapshot.tick() as f64, snapshot.daemon_since());
    }),
    counter(
        "ticks_late_total",
        "Ticks that were due before the one before them had ended.",
        |snapshot, push| push(&[], snapshot.missed().ticks as f64, snapshot.daemon_since()),
    ),
    counter(
        "gap_seconds_total",
        "Time by which ticks began too late: what came and went meanwhile may be missing.",
        |snapshot, push| push(&[], snapshot.missed().by.as_secs_f64(), snapshot.daemon_since()),
    ),
    counter(
        "tick_duration_seconds_total",
        "Time that all ticks took: listing, reading and merging.",
        |snapshot, push| push(&[], snapshot.ticks_duration().as_secs_f64(), snapshot.daemon_since()),
    ),
    gauge(
        "snapshot_timestamp_seconds",
        "When the last tick ended, in seconds of Unix time: the numbers are of then.",
        |snapshot, push| push(&[], unix_seconds(snapshot.taken_at()), None),
    ),
    Metric {
        name: "reader_duration_seconds_total",
        kind: Kind::Counter,
        help: "Time that all runs of the reader took.",
        origin: COMPUTED,
        labels: &["reader"],
        samples: |s, p| each_total(s, p, ComponentKind::Reader, |totals| totals.duration.as_secs_f64()),
    },
    Metric {
        name: "reader_runs_total",
        kind: Kind::Counter,
        help: "Runs of the reader: one in each tick, unless it is off.",
        origin: COMPUTED,
        labels: &["reader"],
        samples: |s, p| each_total(s, p, ComponentKind::Reader, |totals| totals.runs as f64),
    },
    Metric {
        name: "reader_success",
        kind: Kind::Gauge,
        help: "1 when the reader read all there is in the last tick, else 0.",
        origin: COMPUTED,
        labels: &["reader"],
        samples: |s, p| each(s, p, None, ComponentKind::Reader, success),
    },
    Metric {
        name: "reader_errors_total",
        kind: Kind::Counter,
        help: "Things the reader could not read, counted in each run, also those that are not there: a process that has ended, a TAP that a VM names.",
        origin: COMPUTED,
        labels: &["reader"],
        samples: |s, p| each_total(s, p, ComponentKind::Reader, |totals| totals.errors as f64),
    },
    Metric {
        name: "reader_lost_events_total",
        kind: Kind::Counter,
        help: "How often the kernel had more to say of devices at once than the reader could hear: the last counters of some may be missing.",
        origin: COMPUTED,
        labels: &["reader"],
        samples: |s, p| each(s, p, s.daemon_since(), ComponentKind::Reader, |run| Some(run.lost? as f64)),
    },
    Metric {
        name: "reader_pinned",
        kind: Kind::Gauge,
        help: "1 when the reader's programs and counters stay while no daemon runs, 0 when they leave with it: `vm-metrics doctor` says what would make them stay.",
        origin: COMPUTED,
        labels: &["reader"],
        samples: |s, p| each(s, p, None, ComponentKind::Reader, |run| Some(f64::from(u8::from(run.pinned?)))),
    },
    Metric {
        name: "source_duration_seconds_total",
        kind: Kind::Counter,
        help: "Time that all runs of the source took.",
        origin: COMPUTED,
        labels: &["source"],
        samples: |s, p| each_total(s, p, ComponentKind::Source, |totals| totals.duration.as_secs_f64()),
    },
    Metric {
        name: "source_runs_total",
        kind: Kind::Counter,
        help: "Runs of the source: one in each tick, unless it is off.",
        origin: COMPUTED,
        labels: &["source"],
        samples: |s, p| each_total(s, p, ComponentKind::Source, |totals| totals.runs as f64),
    },
    Metric {
        name: "source_errors_total",
        kind: Kind::Counter,
        help: "Things the source could not read, counted in each run.",
        origin: COMPUTED,
        labels: &["source"],
        samples: |s, p| each_total(s, p, ComponentKind::Source, |totals| totals.errors as f64),
    },
    Metric {
        name: "source_success",
        kind: Kind::Gauge,
        help: "1 when the source could look at everything in the last tick, else 0.",
        origin: COMPUTED,
        labels: &["source"],
        samples: |s, p| each(s, p, None, ComponentKind::Source, success),
    },
    Metric {
        name: "source_instances",
        kind: Kind::Gauge,
        help: "VMs the source listed in the last tick.",
        origin: COMPUTED,
        labels: &["source"],
        samples: |s, p| each(s, p, None, ComponentKind::Source, |run| Some(run.items as f64)),
    },
    Metric {
        name: "source_mismatch_bytes",
        kind: Kind::Gauge,
        help: "The device's count of what the guest sent, less the published one: frames in flight, 0 on a quiet device.",
        origin: "the TAP's counters and eBPF",
        labels: NIC,
        samples: |snapshot, push| {
            for (vm, nic) in snapshot.nics() {
                if let Some(bytes) = nic.mismatch_bytes {
                    let labels = [&vm.instance_id, &vm.instance_name, &nic.device, &netns(&nic)];
                    push(&labels.map(String::as_str), bytes as f64, None);
                }
            }
        },
    },
    Metric {
        name: "component_health",
        kind: Kind::Gauge,
        help: "1 for the state that the component is in, 0 for the others.",
        origin: COMPUTED,
        labels: &["kind", "component", "state"],
        samples: |snapshot, push| {
            for run in snapshot.components() {
                for state in Health::ALL {
                    let is = if run.health.state == state { 1.0 } else { 0.0 };
                    push(&[run.kind.as_str(), run.name, state.as_str()], is, None);
                }
            }
        },
    },
    Metric {
        name: "over_budget",
        kind: Kind::Gauge,
        help: "Things of this user that were not looked at in the last tick, beyond the user's share of the work; user is the number of the user.",
        origin: COMPUTED,
        labels: &["user", "component", "resource"],
        samples: |snapshot, push| {
            let of_parts = snapshot.components().iter().map(|run| (run.name, &run.overuse));
            for (part, overuse) in of_parts.chain([("manager", snapshot.overuse())]) {
                for Overuse { uid, resource, count } in overuse {
                    let user = uid.map_or_else(|| "unknown".to_owned(), |uid| uid.to_string());
                    push(&[&user, part, resource], *count as f64, None);
                }
            }
        },
    },
];

const fn gauge(name: &'static str, help: &'static str, samples: OfSnapshot) -> Metric {
    Metric { name, kind: Kind::Gauge, help, origin: COMPUTED, labels: &[], samples }
}

const fn counter(name: &'static str, help: &'static str, samples: OfSnapshot) -> Metric {
    Metric { name, kind: Kind::Counter, help, origin: COMPUTED, labels: &[], samples }
}

fn success(run: &ComponentRun) -> Option<f64> {
    (run.health.state != Health::Disabled).then(|| if run.is_complete() { 1.0 } else { 0.0 })
}

fn each(
    snapshot: &Shown<'_>,
    push: Push<'_>,
    since: Since,
    kind: ComponentKind,
    value: fn(&ComponentRun) -> Option<f64>,
) {
    for run in snapshot.components().iter().filter(|run| run.kind == kind) {
        if let Some(value) = value(run) {
            push(&[run.name], value, since);
        }
    }
}

/// What the parts of a kind have done since the start.
fn each_total(snapshot: &Shown<'_>, push: Push<'_>, kind: ComponentKind, value: fn(ComponentTotals) -> f64) {
    for run in snapshot.components().iter().filter(|run| run.kind == kind) {
        push(&[run.name], value(run.totals), snapshot.daemon_since());
    }
}
