//! Metrics of the exporters: label budgets, and how the pushes ended.

use super::labels::{Label, text};
use super::{Count, Kind, Metric, Real, SeriesGroup, Since, Sink, SnapshotView, otel};
use crate::exporters::exporter_stats::BudgetStats;
use crate::model::unix_seconds;

const COMPUTED: &str = "computed";

const EXPORTER: &[Label] = &[text("exporter", "vm.exporter.name")];

/// Called `metrics_…` for the Go package's sake: see [`full_name`](super::full_name).
pub(super) const BUDGETS: &[Metric] = &[OBSERVED, EXCEEDED];

pub const OBSERVED: Metric = Metric {
    name: "metrics_instances_observed",
    group: SeriesGroup::Base,
    kind: Kind::Gauge,
    unit: "{instance}",
    help: "VMs at the exporter's last output, terminated ones included, before its label budget.",
    origin: COMPUTED,
    labels: EXPORTER,
    otel: otel("label_budget.instance.count"),
    samples: Count(|view, sink| each(view, sink, None, observed)),
};

pub const EXCEEDED: Metric = Metric {
    name: "metrics_label_budget_exceeded_total",
    group: SeriesGroup::Base,
    kind: Kind::Counter,
    unit: "",
    help: "Times at which the number of VMs exceeded the label budget of the exporter.",
    origin: COMPUTED,
    labels: EXPORTER,
    otel: otel("label_budget.exceeded").unit("{transition}"),
    samples: Count(|view, sink| {
        each(view, sink, view.exporters().started(), |budget| Some(budget.exceeded()));
    }),
};

pub(super) const PUSHES: &[Metric] = &[
    Metric {
        name: "otlp_exports_total",
        group: SeriesGroup::Base,
        kind: Kind::Counter,
        unit: "{export}",
        help: "Pushes to the OpenTelemetry collector, by outcome; a push with retries is one.",
        origin: COMPUTED,
        labels: &[text("result", "vm.exporter.result")],
        otel: otel("otlp.export.count"),
        samples: Count(|view, sink| {
            if let Some(pushes) = view.exporters().pushes() {
                sink(&["success"], pushes.successes(), view.exporters().started());
                sink(&["failure"], pushes.failures(), view.exporters().started());
            }
        }),
    },
    Metric {
        name: "otlp_last_success_timestamp_seconds",
        group: SeriesGroup::Base,
        kind: Kind::Gauge,
        unit: "s",
        help: "Time of the last push that the OpenTelemetry collector accepted, in seconds of Unix time.",
        origin: COMPUTED,
        labels: &[],
        otel: otel("otlp.last_success.timestamp"),
        samples: Real(|view, sink| {
            if let Some(at) = view.exporters().pushes().and_then(|pushes| pushes.last_success()) {
                sink(&[], unix_seconds(at), None);
            }
        }),
    },
];

fn each(view: &SnapshotView<'_>, sink: Sink<'_, u64>, since: Since, value: fn(&BudgetStats) -> Option<u64>) {
    for budget in view.exporters().budgets() {
        if let Some(value) = value(budget) {
            sink(&[budget.exporter()], value, since);
        }
    }
}

pub fn observed(budget: &BudgetStats) -> Option<u64> {
    budget.observed().map(|vms| vms as u64)
}
