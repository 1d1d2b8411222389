//! The samples of a snapshot by metric, as data.

use super::exporter_stats::ExporterStats;
use super::metrics::{self, EXPORTER_GROUPS, GROUPS, Group, Metric, Number, Since, SnapshotView};
use crate::model::Snapshot;

/// Takes metrics one after another, each with its samples.
pub trait FamilySink {
    fn begin(&mut self, prefix: Option<&'static str>, metric: &'static Metric);
    /// Takes a sample of the metric that began last.
    fn sample(&mut self, labels: &[&str], value: Number, since: Since);
    fn end(&mut self);
}

/// A metric with its samples; an unmeasured metric has none.
#[derive(Clone, Debug)]
pub struct Family {
    /// First part of the name; `None`: the configured one.
    pub prefix: Option<&'static str>,
    pub metric: &'static Metric,
    pub samples: Vec<Sample>,
}

/// The values of the labels, in the order of the metric, the number, and since when it counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub labels: Vec<String>,
    pub value: Number,
    pub since: Since,
}

/// Keeps the samples.
impl FamilySink for Vec<Family> {
    fn begin(&mut self, prefix: Option<&'static str>, metric: &'static Metric) {
        self.push(Family { prefix, metric, samples: Vec::new() });
    }

    fn sample(&mut self, labels: &[&str], value: Number, since: Since) {
        if let Some(family) = self.last_mut() {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            family.samples.push(Sample { labels, value, since });
        }
    }

    fn end(&mut self) {}
}

/// Every metric of [`GROUPS`].
pub fn of_snapshot(snapshot: &Snapshot) -> Vec<Family> {
    of_groups(GROUPS, snapshot, &ExporterStats::default())
}

/// Every metric of [`EXPORTER_GROUPS`].
#[cfg(feature = "otel")]
pub fn of_exports(snapshot: &Snapshot, stats: &ExporterStats) -> Vec<Family> {
    of_groups(EXPORTER_GROUPS, snapshot, stats)
}

/// The metrics of some groups.
pub fn of_groups(groups: &'static [Group], snapshot: &Snapshot, stats: &ExporterStats) -> Vec<Family> {
    let mut families = Vec::new();
    write(groups, snapshot, stats, |_, _| true, &mut families);
    families
}

/// Writes the metrics of some groups, with the samples of those that are shown.
pub fn write(
    groups: &'static [Group],
    snapshot: &Snapshot,
    stats: &ExporterStats,
    is_shown: impl Fn(Option<&str>, &Metric) -> bool,
    sink: &mut dyn FamilySink,
) {
    let of_group = |group: &'static Group| group.metrics().map(move |metric| (group.prefix, metric));
    for (prefix, metric) in groups.iter().flat_map(of_group) {
        sink.begin(prefix, metric);
        if is_shown(prefix, metric) {
            let view = SnapshotView::new(snapshot, stats, metric.kind);
            metric.samples.compute(&view, &mut |labels, value, since| sink.sample(labels, value, since));
        }
        sink.end();
    }
}

/// Every metric there is, without a sample, in the order of [`of_snapshot`] followed by [`of_exports`].
#[cfg(feature = "otel")]
pub fn names() -> Vec<Family> {
    [GROUPS, EXPORTER_GROUPS].into_iter().flat_map(without_samples).collect()
}

#[cfg(feature = "otel")]
pub fn without_samples(groups: &'static [Group]) -> Vec<Family> {
    let of_group = |group: &'static Group| {
        let prefix = group.prefix;
        group.metrics().map(move |metric| Family { prefix, metric, samples: Vec::new() })
    };
    groups.iter().flat_map(of_group).collect()
}

impl Family {
    pub fn full_name(&self, prefix: &str) -> String {
        metrics::full_name(self.prefix, prefix, self.metric.name)
    }

    pub fn write(&self, sink: &mut dyn FamilySink) {
        sink.begin(self.prefix, self.metric);
        for Sample { labels, value, since } in &self.samples {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            sink.sample(&labels, *value, *since);
        }
        sink.end();
    }
}
