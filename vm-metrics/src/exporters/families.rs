//! The samples of a snapshot by metric, as data.

use super::exporter_stats::ExporterStats;
use super::metrics::{self, EXPORTER_GROUPS, GROUPS, Group, Metric, Number, Since, SnapshotView};
use crate::model::Snapshot;

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

/// Every metric of [`GROUPS`].
pub fn of_snapshot(snapshot: &Snapshot) -> Vec<Family> {
    of_groups(GROUPS, snapshot, &ExporterStats::default())
}

/// Every metric of [`EXPORTER_GROUPS`].
pub fn of_exports(snapshot: &Snapshot, stats: &ExporterStats) -> Vec<Family> {
    of_groups(EXPORTER_GROUPS, snapshot, stats)
}

/// The metrics of some groups.
pub fn of_groups(groups: &'static [Group], snapshot: &Snapshot, stats: &ExporterStats) -> Vec<Family> {
    let mut families = without_samples(groups);
    for Family { metric, samples, .. } in &mut families {
        let view = SnapshotView::new(snapshot, stats, metric.kind);
        metric.samples.compute(&view, &mut |labels, value, since| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            samples.push(Sample { labels, value, since });
        });
    }
    families
}

pub fn without_samples(groups: &'static [Group]) -> Vec<Family> {
    let of_group = |group: &'static Group| {
        let prefix = group.prefix;
        group.metrics().map(move |metric| Family { prefix, metric, samples: Vec::new() })
    };
    groups.iter().flat_map(of_group).collect()
}

/// Every metric there is, without a sample, in the order of [`of_snapshot`] followed by [`of_exports`].
#[cfg(feature = "otel")]
pub fn names() -> Vec<Family> {
    [GROUPS, EXPORTER_GROUPS].into_iter().flat_map(without_samples).collect()
}

impl Family {
    pub fn full_name(&self, prefix: &str) -> String {
        metrics::full_name(self.prefix, prefix, self.metric.name)
    }
}
