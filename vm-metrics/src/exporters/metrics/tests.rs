//! Rules for the entries of all metrics.

mod docs;
mod fields;
mod fixture;

use std::collections::HashSet;

use super::*;
use crate::exporters::exporter_stats::ExporterStats;
use crate::model::{Snapshot, VmStats};
pub(crate) use fixture::full;

fn name_of(group: &Group, metric: &Metric) -> String {
    full_name(group.prefix, "vm", metric.name)
}

fn in_groups(groups: &'static [Group]) -> impl Iterator<Item = (String, &'static Metric)> {
    groups.iter().flat_map(|group| group.metrics().map(|metric| (name_of(group, metric), metric)))
}

fn all() -> impl Iterator<Item = (String, &'static Metric)> {
    in_groups(GROUPS)
}

/// The samples of a metric that shows nothing of the exporters.
fn compute(metric: &Metric, snapshot: &Snapshot, sink: Sink<'_, Number>) {
    metric.samples.compute(&SnapshotView::new(snapshot, &ExporterStats::default(), metric.kind), sink);
}

#[test]
fn every_metric_has_samples_with_all_labels() {
    for (name, metric) in all() {
        let mut samples = 0;
        let snapshot = full();
        compute(metric, &snapshot, &mut |labels, _, since| {
            assert_eq!(labels.len(), metric.labels.len(), "{name}");
            // The kernel does not know when a group was made.
            let has_since = metric.kind == Kind::Counter && !metric.name.starts_with("cgroup_");
            assert_eq!(since.is_some(), has_since, "{name}");
            samples += 1;
        });
        assert!(samples > 0, "{name} is never set");
    }
}

#[test]
fn no_series_appears_twice() {
    for (name, metric) in all() {
        let mut seen = HashSet::new();
        let snapshot = full();
        compute(metric, &snapshot, &mut |labels, _, _| {
            let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
            assert!(seen.insert(labels.clone()), "{name}{labels:?} twice");
        });
    }
}

/// For a VM that has ended, and for an interface that is gone.
#[test]
fn only_counters_outlive_their_vm() {
    let mut ended = full();
    ended.vms[0].running = false;
    let mut without_nic = full();
    without_nic.vms[0].nics[0].gone = true;
    for (name, metric) in all() {
        let of = |label| metric.has_label(label);
        for (snapshot, is_of_gone) in [(&ended, of("instance_id")), (&without_nic, of("device"))] {
            let mut samples = 0;
            compute(metric, snapshot, &mut |_, _, _| samples += 1);
            let ends = is_of_gone && metric.kind != Kind::Counter && metric.name != "running";
            assert_eq!(samples == 0, ends, "{name}");
        }
    }
    let instances = self_metrics::METRICS.iter().find(|metric| metric.name == "instances").unwrap();
    compute(instances, &ended, &mut |_, value, _| assert_eq!(value, Number::Count(0)));
}

#[test]
fn names_follow_the_conventions() {
    let mut seen = HashSet::new();
    for (name, Metric { kind, help, .. }) in all().chain(in_groups(EXPORTER_GROUPS)) {
        assert!(seen.insert(name.clone()), "{name} twice");
        assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
        assert!(help.ends_with('.') && !help.contains(['|', '\\', '\n']), "{name}: {help}");
    }
}

/// As stores with Prometheus naming do: the unit and `_total` go behind a name that does not have them.
#[test]
fn no_store_renames_a_metric() {
    let words = [("s", "seconds"), ("By", "bytes"), ("/s", "second")];
    for (name, Metric { kind, unit, samples, .. }) in all().chain(in_groups(EXPORTER_GROUPS)) {
        let mut tokens: Vec<&str> = name.split('_').collect();
        let (amount, per) = unit.split_at(unit.find('/').unwrap_or(unit.len()));
        for (part, word) in words {
            assert_eq!(amount == part || per == part, tokens.contains(&word), "{name} has the unit {unit}");
        }
        assert_eq!(*unit == "s", !samples.are_whole(), "{name}");
        tokens.retain(|token| *kind != Kind::Counter || *token != "total");
        tokens.extend((*kind == Kind::Counter).then_some("total"));
        assert_eq!(tokens.join("_"), name);
    }
}

#[test]
fn own_metrics_have_a_fixed_prefix() {
    let observed = "metrics_instances_observed";
    assert_eq!(full_name(None, "vm", observed), "vm_exporter_instances_observed");
    assert_eq!(full_name(None, GO_PREFIX, observed), "hypeman_vm_metrics_instances_observed");
    assert_eq!(full_name(None, GO_PREFIX, "info"), "hypeman_vm_info");
    assert_eq!(full_name(Some(OWN_PREFIX), GO_PREFIX, "ticks_total"), "vm_exporter_ticks_total");
}

/// The Go package's own test forbids it. The two numbers that it was made of are there.
#[test]
fn no_exporter_shows_a_memory_ratio() {
    for (name, _) in all() {
        assert!(!name.contains("utilization") && !name.ends_with("_ratio"), "{name}");
    }
}

#[test]
fn a_state_is_one_of_a_set() {
    let state = vm::METRICS.iter().find(|metric| metric.name == "state").unwrap();
    let (snapshot, mut set) = (full(), Vec::new());
    compute(state, &snapshot, &mut |labels, value, _| {
        set.push((labels[2].to_owned(), value));
    });
    let expected = [("not-started", 0), ("running", 1), ("paused", 0), ("stopped", 0)];
    assert_eq!(set, expected.map(|(state, value)| (state.to_owned(), Number::Count(value))));
}

#[test]
fn own_prefixes_cannot_be_configured() {
    for prefix in GROUPS.iter().filter_map(|group| group.prefix) {
        assert!(crate::config::OWN_PREFIXES.contains(&prefix), "{prefix}");
    }
}

#[test]
fn an_unmeasured_vm_has_no_samples() {
    let mut snapshot = full();
    snapshot.vms = vec![VmStats { instance_id: "a".into(), running: true, ..VmStats::default() }];
    let is_of_vm = |metric: &&Metric| metric.has_label("instance_id");
    let metrics = all().map(|(_, metric)| metric).filter(is_of_vm);
    for metric in metrics.filter(|metric| !["info", "running"].contains(&metric.name)) {
        compute(metric, &snapshot, &mut |labels, value, _| panic!("{}{labels:?} = {value}", metric.name));
    }
}

/// What orchestrators, balloons and the reader `proc_smaps` add is not counted.
#[test]
fn the_base_group_has_at_most_thirty_series() {
    let mut snapshot = full();
    let vm = &mut snapshot.vms[0];
    vm.tags.clear();
    vm.unmonitored.clear();
    (vm.restart_attempts, vm.actual_memory_bytes) = (None, None);
    (vm.network_limit_rx_bytes_per_second, vm.network_limit_tx_bytes_per_second) = (None, None);
    (vm.process.memory_pss_bytes, vm.process.memory_private_bytes) = (None, None);
    let mut series = 0;
    for (_, metric) in all().filter(|(_, metric)| metric.has_label("instance_id") && metric.group.is_in(&[]))
    {
        compute(metric, &snapshot, &mut |_, _, _| series += 1);
    }
    assert!((20..=30).contains(&series), "{series}");
}
