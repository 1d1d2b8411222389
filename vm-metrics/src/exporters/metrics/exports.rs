//! Metrics of the exporters: label budgets, and what became of the pushes.

use super::{Kind, Metric, OfExports, Push, Since};
use crate::exporters::exports::{BudgetCounts, Exports};
use crate::model::unix_seconds;

const COMPUTED: &str = "computed";

/// Called `metrics_…` for the Go package's sake: see [`full_name`](super::full_name).
pub(super) const BUDGETS: &[Metric<OfExports>] = &[
    Metric {
        name: "metrics_instances_observed",
        kind: Kind::Gauge,
        help: "VMs that the exporter had to show last, those that have ended included; beyond its label budget they are too many.",
        origin: COMPUTED,
        labels: &["exporter"],
        samples: |exports, push| each(exports, push, None, |budget| budget.observed().map(|vms| vms as f64)),
    },
    Metric {
        name: "metrics_label_budget_exceeded_total",
        kind: Kind::Counter,
        help: "How often the number of VMs went beyond the label budget of the exporter.",
        origin: COMPUTED,
        labels: &["exporter"],
        samples: |exports, push| {
            each(exports, push, exports.started(), |budget| Some(budget.exceeded() as f64));
        },
    },
];

pub(super) const PUSHES: &[Metric<OfExports>] = &[
    Metric {
        name: "otlp_exports_total",
        kind: Kind::Counter,
        help: "Pushes to the OpenTelemetry collector that ended, by how they ended; one with retries is one.",
        origin: COMPUTED,
        labels: &["result"],
        samples: |exports, push| {
            if let Some(pushes) = exports.pushes() {
                push(&["success"], pushes.successes() as f64, exports.started());
                push(&["failure"], pushes.failures() as f64, exports.started());
            }
        },
    },
    Metric {
        name: "otlp_last_success_timestamp_seconds",
        kind: Kind::Gauge,
        help: "When the OpenTelemetry collector last took a push, in seconds of Unix time.",
        origin: COMPUTED,
        labels: &[],
        samples: |exports, push| {
            if let Some(at) = exports.pushes().and_then(|pushes| pushes.last_success()) {
                push(&[], unix_seconds(at), None);
            }
        },
    },
];

fn each(exports: &Exports, push: Push<'_>, since: Since, value: fn(&BudgetCounts) -> Option<f64>) {
    for budget in exports.budgets() {
        if let Some(value) = value(budget) {
            push(&[budget.exporter()], value, since);
        }
    }
}
