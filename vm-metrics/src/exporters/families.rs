//! Every sample of a snapshot as data, in the order of the metrics: what exporters that change or keep samples work on.

use super::exports::Exports;
use super::metrics::{self, EXPORT_GROUPS, GROUPS, Group, Kind, Metric, Push, Shown, Since};
use crate::model::Snapshot;

/// The label that says whose number it is.
pub const ID: &str = "instance_id";

/// A metric with its samples; without any when nothing was measured.
#[derive(Clone, Debug)]
pub struct Family {
    /// First part of the name; `None`: the configured one.
    pub prefix: Option<&'static str>,
    /// Follows the prefix and `_`.
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    pub labels: &'static [&'static str],
    pub samples: Vec<Sample>,
}

/// The values of the labels, in the order of the family, the number, and since when it counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub labels: Vec<String>,
    pub value: f64,
    pub since: Since,
}

/// Every metric of [`GROUPS`].
pub fn of_snapshot(snapshot: &Snapshot) -> Vec<Family> {
    of_groups(GROUPS, snapshot)
}

/// These metrics.
pub fn of_groups(groups: &'static [Group], snapshot: &Snapshot) -> Vec<Family> {
    families(groups, |metric, push| (metric.samples)(&Shown::new(snapshot, metric.kind), push))
}

/// The same without samples.
#[cfg(feature = "otel")]
pub fn names_of(groups: &'static [Group]) -> Vec<Family> {
    families(groups, |_, _| {})
}

/// Every metric there is, without a sample, in the order of [`of_snapshot`] followed by [`of_exports`].
#[cfg(feature = "otel")]
pub fn names() -> Vec<Family> {
    let mut names = names_of(GROUPS);
    names.extend(families(EXPORT_GROUPS, |_, _| {}));
    names
}

/// Every metric of [`EXPORT_GROUPS`].
pub fn of_exports(exports: &Exports) -> Vec<Family> {
    families(EXPORT_GROUPS, |metric, push| (metric.samples)(exports, push))
}

impl Family {
    pub fn full_name(&self, prefix: &str) -> String {
        metrics::full_name(self.prefix, prefix, self.name)
    }
}

fn families<F>(groups: &'static [Group<F>], fill: impl Fn(&'static Metric<F>, Push<'_>)) -> Vec<Family> {
    let of_group = |group: &'static Group<F>| group.metrics.iter().map(move |metric| (group, metric));
    let family = |(group, metric): (&'static Group<F>, &'static Metric<F>)| {
        let mut samples = Vec::new();
        fill(metric, &mut |labels, value, since| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            samples.push(Sample { labels, value, since });
        });
        let Metric { name, kind, help, labels, .. } = *metric;
        Family { prefix: group.prefix, name, kind, help, labels, samples }
    };
    groups.iter().flat_map(of_group).map(family).collect()
}
