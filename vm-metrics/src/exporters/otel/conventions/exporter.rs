//! Instruments of the daemon itself.

use super::Metrics::One;
use super::{Convention, counter, gauge, up_down};

pub(super) const OWN_METRICS: &[Convention] = &[
    gauge("build.info", "", One("build_info")),
    up_down("instance.count", "{instance}", One("instances")),
    counter("tick.count", "{tick}", One("ticks_total")),
    counter("tick.late", "{tick}", One("ticks_late_total")),
    counter("tick.time", "s", One("tick_duration_seconds_total")),
    counter("gap.time", "s", One("gap_seconds_total")),
    gauge("snapshot.timestamp", "s", One("snapshot_timestamp_seconds")),
    counter("reader.time", "s", One("reader_duration_seconds_total")),
    counter("reader.run.count", "{run}", One("reader_runs_total")),
    counter("reader.errors", "{error}", One("reader_errors_total")),
    counter("reader.lost_events", "{event}", One("reader_lost_events_total")),
    gauge("reader.success", "", One("reader_success")),
    gauge("reader.pinned", "", One("reader_pinned")),
    counter("source.time", "s", One("source_duration_seconds_total")),
    counter("source.run.count", "{run}", One("source_runs_total")),
    counter("source.errors", "{error}", One("source_errors_total")),
    gauge("source.success", "", One("source_success")),
    gauge("source.instance.count", "{instance}", One("source_instances")),
    gauge("source.mismatch", "By", One("source_mismatch_bytes")),
    up_down("component.status", "{component}", One("component_health")),
    gauge("over_budget", "", One("over_budget")),
    gauge("label_budget.instance.count", "{instance}", One("metrics_instances_observed")),
    counter("label_budget.exceeded", "{transition}", One("metrics_label_budget_exceeded_total")),
    counter("otlp.export.count", "{export}", One("otlp_exports_total")),
    gauge("otlp.last_success.timestamp", "s", One("otlp_last_success_timestamp_seconds")),
];
