//! Metrics of the daemon itself: whether its other numbers can be trusted, and what they cost.

use super::nic::{NIC, netns};
use super::{Kind, Metric, OfSnapshot, Push, Shown, Since};
use crate::model::{Health, Overuse, PartKind, PartRun};

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
        |snapshot, push| push(&[], snapshot.late().ticks as f64, snapshot.daemon_since()),
    ),
    counter(
        "gap_seconds_total",
        "Time by which ticks began too late: what came and went meanwhile may be missing.",
        |snapshot, push| push(&[], snapshot.late().by.as_secs_f64(), snapshot.daemon_since()),
    ),
    gauge(
        "tick_duration_seconds",
        "Time the last tick took: listing, reading and merging.",
        |snapshot, push| push(&[], snapshot.tick_duration().as_secs_f64(), None),
    ),
    Metric {
        name: "reader_duration_seconds",
        kind: Kind::Gauge,
        help: "Time the reader took in the last tick.",
        origin: COMPUTED,
        labels: &["reader"],
        samples: |s, p| {
            each(s, p, None, PartKind::Reader, |run| run.duration.map(|duration| duration.as_secs_f64()))
        },
    },
    Metric {
        name: "reader_success",
        kind: Kind::Gauge,
        help: "1 when the reader read all there is in the last tick, else 0.",
        origin: COMPUTED,
        labels: &["reader"],
        samples: |s, p| each(s, p, None, PartKind::Reader, success),
    },
    Metric {
        name: "reader_errors",
        kind: Kind::Gauge,
        help: "Things the reader could not read in the last tick, also those that are not there: a process that has ended, a TAP that a VM names.",
        origin: COMPUTED,
        labels: &["reader"],
        samples: |s, p| each(s, p, None, PartKind::Reader, |run| Some(run.errors as f64)),
    },
    Metric {
        name: "reader_lost_events_total",
        kind: Kind::Counter,
        help: "How often the kernel had more to say of devices at once than the reader could hear: the last counters of some may be missing.",
        origin: COMPUTED,
        labels: &["reader"],
        samples: |s, p| each(s, p, s.daemon_since(), PartKind::Reader, |run| Some(run.lost? as f64)),
    },
    Metric {
        name: "reader_pinned",
        kind: Kind::Gauge,
        help: "1 when the reader's programs and counters stay while no daemon runs, 0 when they leave with it: `vm-metrics doctor` says what would make them stay.",
        origin: COMPUTED,
        labels: &["reader"],
        samples: |s, p| each(s, p, None, PartKind::Reader, |run| Some(f64::from(u8::from(run.pinned?)))),
    },
    Metric {
        name: "source_duration_seconds",
        kind: Kind::Gauge,
        help: "Time the source took in the last tick.",
        origin: COMPUTED,
        labels: &["source"],
        samples: |s, p| {
            each(s, p, None, PartKind::Source, |run| run.duration.map(|duration| duration.as_secs_f64()))
        },
    },
    Metric {
        name: "source_success",
        kind: Kind::Gauge,
        help: "1 when the source could look at everything in the last tick, else 0.",
        origin: COMPUTED,
        labels: &["source"],
        samples: |s, p| each(s, p, None, PartKind::Source, success),
    },
    Metric {
        name: "source_instances",
        kind: Kind::Gauge,
        help: "VMs the source listed in the last tick.",
        origin: COMPUTED,
        labels: &["source"],
        samples: |s, p| each(s, p, None, PartKind::Source, |run| Some(run.items as f64)),
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
        name: "part_health",
        kind: Kind::Gauge,
        help: "1 for the state the part is in, 0 for the others.",
        origin: COMPUTED,
        labels: &["kind", "part", "state"],
        samples: |snapshot, push| {
            for run in snapshot.parts() {
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
        labels: &["user", "part", "resource"],
        samples: |snapshot, push| {
            let of_parts = snapshot.parts().iter().map(|run| (run.name, &run.overuse));
            for (part, overuse) in of_parts.chain([("manager", snapshot.overuse())]) {
                for Overuse { uid, resource, count } in overuse {
                    let user = uid.map_or_else(|| "unknown".to_owned(), |uid| uid.to_string());
                    push(&[&user, part, resource], *count as f64, None);
                }
            }
        },
    },
];

pub(super) const LIVE: &[Metric] =
    &[gauge("snapshot_age_seconds", "Age of the numbers at the moment of the scrape.", |snapshot, push| {
        push(&[], snapshot.taken().elapsed().as_secs_f64(), None);
    })];

const fn gauge(name: &'static str, help: &'static str, samples: OfSnapshot) -> Metric {
    Metric { name, kind: Kind::Gauge, help, origin: COMPUTED, labels: &[], samples }
}

const fn counter(name: &'static str, help: &'static str, samples: OfSnapshot) -> Metric {
    Metric { name, kind: Kind::Counter, help, origin: COMPUTED, labels: &[], samples }
}

fn success(run: &PartRun) -> Option<f64> {
    (run.health.state != Health::Disabled).then(|| if run.is_complete() { 1.0 } else { 0.0 })
}

fn each(
    snapshot: &Shown<'_>,
    push: Push<'_>,
    since: Since,
    kind: PartKind,
    value: fn(&PartRun) -> Option<f64>,
) {
    for run in snapshot.parts().iter().filter(|run| run.kind == kind) {
        if let Some(value) = value(run) {
            push(&[run.name], value, since);
        }
    }
}
