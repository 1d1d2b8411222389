//! Tests that each number in a snapshot is in a metric of its kind.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::fixture::full;
use super::{ExporterStats, GROUPS, Group, Kind, Number, SnapshotView};
use crate::model::{DirectionStats, EbpfStats, NicStats, ProcessStats, Snapshot, VmStats};

/// Each number is this one.
pub(super) fn process_stats(number: Option<u64>) -> ProcessStats {
    ProcessStats::default().zip_with(ProcessStats::default(), |_, _| number, |_, _| number)
}

/// The names of the fields of a struct, each with the struct in which it alone is 1.
fn each_alone<T: Serialize + DeserializeOwned>(all: T) -> Vec<(String, T)> {
    let Value::Object(fields) = serde_json::to_value(all).unwrap() else { panic!("no struct") };
    let alone = |name: &String| serde_json::from_value(json!({ name: 1 })).unwrap();
    fields.keys().map(|name| (name.clone(), alone(name))).collect()
}

/// How many samples counters show of a VM that are not 0, and how many all others.
fn samples_of(vm: VmStats) -> (usize, usize) {
    let snapshot = Snapshot { vms: vec![VmStats { running: true, ..vm }], ..full() };
    let (exporters, mut counters, mut others) = (ExporterStats::default(), 0, 0);
    for metric in GROUPS.iter().flat_map(Group::metrics) {
        let view = SnapshotView::new(&snapshot, &exporters, metric.kind);
        let samples = if metric.kind == Kind::Counter { &mut counters } else { &mut others };
        metric.samples.compute(&view, &mut |_, value, _| *samples += usize::from(value != Number::Count(0)));
    }
    (counters, others)
}

#[test]
fn each_number_of_a_process_has_a_metric() {
    let of = |process| samples_of(VmStats { process, ..VmStats::default() });
    let (counters, others) = of(ProcessStats::default());
    for (name, process) in each_alone(process_stats(None)) {
        let outlives_it = process.ended(ProcessStats::default()) == process;
        let expected = if outlives_it { (counters + 1, others) } else { (counters, others + 1) };
        assert_eq!(of(process), expected, "metrics of {name}");
    }
}

/// Packets and bytes are in the metrics of what was sent and offered.
#[test]
fn each_counter_of_a_direction_has_a_metric() {
    let of = |stats| {
        let ebpf = Some(EbpfStats { rx: stats, tx: stats, ..EbpfStats::default() });
        samples_of(VmStats { nics: vec![NicStats { ebpf, ..NicStats::default() }], ..VmStats::default() }).0
    };
    let none = of(DirectionStats::default());
    for (name, stats) in each_alone(DirectionStats::default()) {
        let directions = if ["packets", "bytes"].contains(&name.as_str()) { 0 } else { 2 };
        assert_eq!(of(stats), none + directions, "metrics of {name}");
    }
}
