//! Metrics of the daemon's sources and readers: their health and their cost.

use super::labels::{Label, NIC, text};
use super::nic::netns;
use super::{
    Count, Difference, InstrumentKind, Kind, Metric, Real, SeriesGroup, Since, Sink, SnapshotView, otel,
};
use crate::model::{ComponentKind, ComponentRun, ComponentTotals, Health, Overuse};

const COMPUTED: &str = "computed";

const READER: &[Label] = &[text("reader", "vm.exporter.reader")];
const SOURCE: &[Label] = &[text("source", "vm.exporter.source")];

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "reader_duration_seconds_total",
        group: SeriesGroup::Base,
        kind: Kind::Counter,
        unit: "s",
        help: "Time of all runs of the reader.",
        origin: COMPUTED,
        labels: READER,
        otel: otel("reader.time"),
        samples: Real(|view, sink| {
            each_total(view, sink, ComponentKind::Reader, |totals| totals.duration.as_secs_f64())
        }),
    },
    Metric {
        name: "reader_runs_total",
        group: SeriesGroup::Base,
        kind: Kind::Counter,
        unit: "{run}",
        help: "Runs of the reader: one in each tick, unless it is off.",
        origin: COMPUTED,
        labels: READER,
        otel: otel("reader.run.count"),
        samples: Count(|view, sink| each_total(view, sink, ComponentKind::Reader, |totals| totals.runs)),
    },
    Metric {
        name: "reader_success",
        group: SeriesGroup::Base,
        kind: Kind::Gauge,
        unit: "",
        help: "1 if the reader could read everything in the last tick, else 0.",
        origin: COMPUTED,
        labels: READER,
        otel: otel("reader.success"),
        samples: Count(|view, sink| each(view, sink, None, ComponentKind::Reader, success)),
    },
    Metric {
        name: "reader_errors_total",
        group: SeriesGroup::Base,
        kind: Kind::Counter,
        unit: "{error}",
        help: "Failed readings of the reader, counted in each run; missing ones are included: an ended process, a TAP that does not exist.",
        origin: COMPUTED,
        labels: READER,
        otel: otel("reader.errors"),
        samples: Count(|view, sink| each_total(view, sink, ComponentKind::Reader, |totals| totals.errors)),
    },
    Metric {
        name: "reader_lost_events_total",
        group: SeriesGroup::Base,
        kind: Kind::Counter,
        unit: "",
        help: "Times at which the kernel had more device events than the reader's socket holds: final counters of some devices may be missing.",
        origin: COMPUTED,
        labels: READER,
        otel: otel("reader.lost_events").unit("{event}"),
        samples: Count(|view, sink| {
            each(view, sink, view.daemon_since(), ComponentKind::Reader, |run| run.lost)
        }),
    },
    Metric {
        name: "reader_pinned",
        group: SeriesGroup::Base,
        kind: Kind::Gauge,
        unit: "",
        help: "1 if the reader's programs and counters stay while no daemon runs, 0 if they end with it: `vm-metrics doctor` has the remedy.",
        origin: COMPUTED,
        labels: READER,
        otel: otel("reader.pinned"),
        samples: Count(|view, sink| {
            each(view, sink, None, ComponentKind::Reader, |run| Some(u64::from(run.pinned?)))
        }),
    },
    Metric {
        name: "source_duration_seconds_total",
        group: SeriesGroup::Base,
        kind: Kind::Counter,
        unit: "s",
        help: "Time of all runs of the source.",
        origin: COMPUTED,
        labels: SOURCE,
        otel: otel("source.time"),
        samples: Real(|view, sink| {
            each_total(view, sink, ComponentKind::Source, |totals| totals.duration.as_secs_f64())
        }),
    },
    Metric {
        name: "source_runs_total",
        group: SeriesGroup::Base,
        kind: Kind::Counter,
        unit: "{run}",
        help: "Runs of the source: one in each tick, unless it is off.",
        origin: COMPUTED,
        labels: SOURCE,
        otel: otel("source.run.count"),
        samples: Count(|view, sink| each_total(view, sink, ComponentKind::Source, |totals| totals.runs)),
    },
    Metric {
        name: "source_errors_total",
        group: SeriesGroup::Base,
        kind: Kind::Counter,
        unit: "{error}",
        help: "Problems of the source, counted in each run.",
        origin: COMPUTED,
        labels: SOURCE,
        otel: otel("source.errors"),
        samples: Count(|view, sink| each_total(view, sink, ComponentKind::Source, |totals| totals.errors)),
    },
    Metric {
        name: "source_success",
        group: SeriesGroup::Base,
        kind: Kind::Gauge,
        unit: "",
        help: "1 if the source had no problem in the last tick, else 0.",
        origin: COMPUTED,
        labels: SOURCE,
        otel: otel("source.success"),
        samples: Count(|view, sink| each(view, sink, None, ComponentKind::Source, success)),
    },
    Metric {
        name: "source_instances",
        group: SeriesGroup::Base,
        kind: Kind::Gauge,
        unit: "{instance}",
        help: "VMs that the source listed in the last tick.",
        origin: COMPUTED,
        labels: SOURCE,
        otel: otel("source.instance.count"),
        samples: Count(|view, sink| {
            each(view, sink, None, ComponentKind::Source, |run| Some(run.items as u64))
        }),
    },
    Metric {
        name: "source_mismatch_bytes",
        group: SeriesGroup::Base,
        kind: Kind::Amount,
        unit: "By",
        help: "The device's count of the guest's output, minus the published one: frames in flight, 0 on a quiet device.",
        origin: "the TAP's counters and eBPF",
        labels: NIC,
        otel: otel("source.mismatch").instrument(InstrumentKind::Gauge),
        samples: Difference(|view, sink| {
            for (vm, nic) in view.nics() {
                if let Some(bytes) = nic.mismatch_bytes {
                    let labels = [&vm.instance_id, &vm.instance_name, &nic.device, &netns(&nic)];
                    sink(&labels.map(String::as_str), bytes, None);
                }
            }
        }),
    },
    Metric {
        name: "component_health",
        group: SeriesGroup::Base,
        kind: Kind::Gauge,
        unit: "",
        help: "1 for the present state of the component, 0 for the others.",
        origin: COMPUTED,
        labels: &[
            text("kind", "vm.exporter.component.kind"),
            text("component", "vm.exporter.component.name"),
            text("state", "vm.exporter.component.state"),
        ],
        otel: otel("component.status").unit("{component}").instrument(InstrumentKind::UpDownCounter),
        samples: Count(|view, sink| {
            for run in view.components() {
                for state in Health::ALL {
                    let is = u64::from(run.health.state == state);
                    sink(&[run.kind.as_str(), run.name, state.as_str()], is, None);
                }
            }
        }),
    },
    Metric {
        name: "over_budget",
        group: SeriesGroup::Base,
        kind: Kind::Gauge,
        unit: "",
        help: "Work for this user beyond the user's share, omitted in the last tick; user is the user's number.",
        origin: COMPUTED,
        labels: &[
            text("user", "user.id"),
            text("component", "vm.exporter.component.name"),
            text("resource", "vm.exporter.resource"),
        ],
        otel: otel("over_budget"),
        samples: Count(|view, sink| {
            let of_parts = view.components().iter().map(|run| (run.name, &run.overuse));
            for (part, overuse) in of_parts.chain([("manager", view.overuse())]) {
                for Overuse { uid, resource, count } in overuse {
                    let user = uid.map_or_else(|| "unknown".to_owned(), |uid| uid.to_string());
                    sink(&[&user, part, resource], *count, None);
                }
            }
        }),
    },
];

fn success(run: &ComponentRun) -> Option<u64> {
    (run.health.state != Health::Disabled).then(|| u64::from(run.is_complete()))
}

fn each(
    view: &SnapshotView<'_>,
    sink: Sink<'_, u64>,
    since: Since,
    kind: ComponentKind,
    value: fn(&ComponentRun) -> Option<u64>,
) {
    for run in view.components().iter().filter(|run| run.kind == kind) {
        if let Some(value) = value(run) {
            sink(&[run.name], value, since);
        }
    }
}

/// The totals of all components of a kind since the start.
fn each_total<N>(
    view: &SnapshotView<'_>,
    sink: Sink<'_, N>,
    kind: ComponentKind,
    value: fn(ComponentTotals) -> N,
) {
    for run in view.components().iter().filter(|run| run.kind == kind) {
        sink(&[run.name], value(run.totals), view.daemon_since());
    }
}
