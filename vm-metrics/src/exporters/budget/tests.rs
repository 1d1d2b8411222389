//! Budgets over several snapshots: which series are shown, and their sums.

mod renames;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;
use crate::exporters::families::{self, Sample};
use crate::exporters::metrics::Kind;
use crate::exporters::metrics::tests::full;
use crate::model::{FrameCounts, NicStats, ProcessStats, VmStats};

fn aggregate(vms: usize) -> LabelBudget {
    LabelBudget::new("test", Budget { vms, over: OverBudget::Aggregate })
}

fn vm(id: usize, rx: u64, tx: u64) -> VmStats {
    let frames = |bytes| FrameCounts { bytes: Some(bytes), ..FrameCounts::default() };
    VmStats {
        instance_id: format!("vm-{id}"),
        instance_name: format!("name-{id}"),
        running: true,
        process: ProcessStats { memory_rss_bytes: Some(10), ..ProcessStats::default() },
        allocated_vcpus: Some(2),
        allocated_memory_bytes: Some(100),
        nics: vec![NicStats {
            device: format!("tap{id}"),
            rx_backlog_packets: Some(3),
            rx: frames(rx),
            tx: frames(tx),
            ..NicStats::default()
        }],
        ..VmStats::default()
    }
}

fn fit(budget: &mut LabelBudget, tick: u64, vms: Vec<VmStats>) -> Vec<Family> {
    let snapshot = Snapshot { tick, vms, ..full() };
    let families = families::of_snapshot(&snapshot);
    if budget.observe(&snapshot) { budget.fit(&snapshot, families) } else { families }
}

fn family<'a>(families: &'a [Family], name: &str) -> &'a Family {
    families.iter().find(|family| family.metric.name == name).unwrap()
}

/// By `instance_id`.
fn values(families: &[Family], name: &str) -> BTreeMap<String, f64> {
    family(families, name)
        .samples
        .iter()
        .map(|sample| (sample.labels[0].clone(), sample.value.as_f64()))
        .collect()
}

const TX: &str = "network_tx_bytes_total";

#[test]
fn within_the_budget_nothing_changes() {
    let mut budget = aggregate(2);
    for (tick, tx) in [(1, 1000), (2, 2000), (3, 50)] {
        let vms = vec![vm(0, 10, tx), vm(1, 20, tx)];
        let mut expected = families::of_snapshot(&Snapshot { tick, vms: vms.clone(), ..full() });
        let mut fitted = fit(&mut budget, tick, vms);
        for family in expected.iter_mut().chain(&mut fitted) {
            // Times.
            family.samples.retain(|_| !family.metric.name.ends_with("_seconds"));
        }
        let samples =
            |families: Vec<Family>| families.into_iter().map(|family| family.samples).collect::<Vec<_>>();
        assert_eq!(samples(fitted), samples(expected), "tick {tick}, the last with counters that began anew");
    }
}

#[test]
fn the_rest_adds_up_below_the_top() {
    let mut budget = aggregate(1);
    let vms = |steps: [u64; 3]| steps.iter().enumerate().map(|(id, tx)| vm(id, 0, *tx)).collect();
    let first = fit(&mut budget, 1, vms([5, 100, 7]));
    assert_eq!(values(&first, TX), BTreeMap::from([("vm-1".into(), 100.0), ("other".into(), 12.0)]));
    assert_eq!(values(&first, "memory_rss_bytes")["other"], 20.0);
    assert_eq!(values(&first, "allocated_vcpus")["other"], 4.0);
    assert_eq!(values(&first, "network_rx_backlog_packets")["other"], 6.0);
    for name in ["info", "running", "network_source_info"] {
        assert_eq!(values(&first, name).into_keys().collect::<Vec<_>>(), ["vm-1"], "{name}");
    }
    let other = family(&first, TX).samples.iter().find(|sample| sample.labels[0] == OTHER).unwrap();
    assert_eq!(other.labels, [OTHER; 4]);

    // Another has plainly more: it takes the place, and shows nothing of before.
    let second = fit(&mut budget, 2, vms([1005, 110, 7]));
    assert_eq!(values(&second, TX), BTreeMap::from([("vm-0".into(), 0.0), ("other".into(), 1022.0)]));
    let third = fit(&mut budget, 3, vms([1105, 110, 7]));
    assert_eq!(values(&third, TX), BTreeMap::from([("vm-0".into(), 100.0), ("other".into(), 1022.0)]));
}

#[cfg(feature = "otel")]
#[test]
fn a_lower_budget_moves_the_least_out() {
    let mut budget = aggregate(2);
    let vms = |tx: [u64; 2]| vec![vm(0, 0, tx[0]), vm(1, 0, tx[1])];
    assert_eq!(values(&fit(&mut budget, 1, vms([100, 5])), TX)["vm-1"], 5.0);
    budget.set_vms(1);
    let shown = values(&fit(&mut budget, 2, vms([110, 7])), TX);
    assert_eq!(shown, BTreeMap::from([("vm-0".into(), 110.0), ("other".into(), 2.0)]));
}

/// Also of counters that are new: the rest has them of all other VMs.
#[test]
fn every_counter_of_the_rest_adds_up() {
    let mut budget = aggregate(1);
    let vms = ["a", "b", "c"].map(|id| VmStats { instance_id: id.into(), ..full().vms.remove(0) });
    let families = fit(&mut budget, 1, vms.into());
    for family in families.iter().filter(|family| family.metric.kind == Kind::Counter) {
        if !family.metric.has_label("instance_id") {
            continue;
        }
        let sum = |of_other: bool| -> f64 {
            let samples = family.samples.iter().filter(|sample| (sample.labels[0] == OTHER) == of_other);
            samples.map(|sample| sample.value.as_f64()).sum()
        };
        assert_eq!(sum(true), 2.0 * sum(false), "{}", family.metric.name);
    }
}

#[test]
fn equal_vms_do_not_change_places() {
    let mut budget = aggregate(1);
    let mut tx = [1000, 900];
    let mut shown = BTreeSet::new();
    for tick in 1..50 {
        tx[0] += if tick % 2 == 0 { 1000 } else { 1200 };
        tx[1] += if tick % 2 == 0 { 1200 } else { 1000 };
        shown.extend(values(&fit(&mut budget, tick, vec![vm(0, 0, tx[0]), vm(1, 0, tx[1])]), TX).into_keys());
    }
    assert_eq!(shown, BTreeSet::from(["vm-0".to_owned(), OTHER.to_owned()]));
}

#[test]
fn a_transition_is_counted_once() {
    let mut budget = LabelBudget::new("test", Budget { vms: 1, over: OverBudget::Warn });
    let counts = budget.counts();
    assert_eq!(counts.observed(), None);
    for (tick, vms, exceeded) in [(1, 1, 0), (2, 2, 1), (3, 3, 1), (4, 1, 1), (5, 2, 2)] {
        let shown = fit(&mut budget, tick, (0..vms).map(|id| vm(id, 1, 1)).collect());
        assert_eq!((counts.observed(), counts.exceeded()), (Some(vms), exceeded));
        assert_eq!(values(&shown, TX).len(), vms, "all are shown");
    }
}

#[test]
fn a_vm_called_other_hides_no_rest() {
    let mut budget = aggregate(1);
    let named = VmStats { instance_id: OTHER.into(), ..vm(0, 0, 1000) };
    let shown = fit(&mut budget, 1, vec![named, vm(1, 0, 1)]);
    assert_eq!(values(&shown, TX), BTreeMap::from([("vm-1".into(), 1.0), (OTHER.into(), 1000.0)]));
}

#[test]
fn an_older_snapshot_moves_no_counter() {
    let mut budget = aggregate(1);
    let vms = |tx| vec![vm(0, 0, tx), vm(1, 0, tx / 2)];
    let last = fit(&mut budget, 5, vms(100));
    for tick in [4, 5] {
        assert_eq!(
            values(&fit(&mut budget, tick, vms(if tick == 4 { 80 } else { 100 })), TX),
            values(&last, TX)
        );
    }
}

/// A database that reads every series: it adds the first value and every step since. A lower value is a new beginning.
#[derive(Default)]
struct Database {
    last: HashMap<Vec<String>, f64>,
    total: f64,
}

impl Database {
    fn read(&mut self, labels: &[String], value: f64) {
        let before = self.last.insert(labels.to_vec(), value).unwrap_or(0.0);
        self.total += if value < before { value } else { value - before };
    }
}

#[derive(Clone, Debug)]
enum Event {
    Counts(u64),
    /// A new process.
    Restarts(u64),
    /// Its counters cannot be read.
    Unread,
    /// No source lists it.
    Gone,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..1000_u64).prop_map(Event::Counts),
        1 => (0..1000_u64).prop_map(Event::Restarts),
        1 => Just(Event::Unread),
        1 => Just(Event::Gone),
    ]
}

proptest! {
    #[test]
    fn all_series_add_up_to_the_counters(
        limit in 1..4_usize,
        looks in prop::collection::vec(prop::collection::vec(event(), 6), 1..40),
    ) {
        let mut budget = aggregate(limit);
        let (mut truth, mut shown) = (Database::default(), Database::default());
        let mut counters = [0_u64; 6];
        let mut rest = 0.0;
        for (tick, events) in (1..).zip(&looks) {
            let mut vms = Vec::new();
            for (id, event) in events.iter().enumerate() {
                let counter = &mut counters[id];
                match event {
                    Event::Counts(bytes) => *counter += bytes,
                    // A counter that began anew and reached its old value looks as if it went on.
                    Event::Restarts(bytes) => *counter = (*bytes).min(counter.saturating_sub(1)),
                    Event::Unread => {}
                    Event::Gone => continue,
                }
                let mut vm = vm(id, 0, *counter);
                if matches!(event, Event::Unread) {
                    vm.nics[0].tx.bytes = None;
                } else {
                    truth.read(&[vm.instance_id.clone()], *counter as f64);
                }
                vms.push(vm);
            }
            let present = vms.len();
            let families = fit(&mut budget, tick, vms);
            let mut own = 0;
            for Sample { labels, value, .. } in &family(&families, TX).samples {
                let value = &value.as_f64();
                shown.read(labels, *value);
                if labels[0] == OTHER {
                    prop_assert!(*value >= rest);
                    rest = *value;
                } else {
                    own += 1;
                }
            }
            prop_assert!(own <= limit);
            let infos = family(&families, "info").samples.len();
            prop_assert_eq!(infos, present.min(limit), "every free place is used");
            prop_assert_eq!(shown.total, truth.total);
        }
    }
}
