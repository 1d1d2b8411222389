//! Instruments on a real meter, collected by a reader of the SDK.

mod basic;
mod naming;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{ManualReader, SdkMeterProvider, Temporality};

use super::*;
use crate::exporters::families::{Family, Sample};
use crate::exporters::metrics::tests::full;
use crate::exporters::metrics::{EXPORTER_GROUPS, Group, Number};
use crate::model::{InstanceInfo, Snapshot};

/// By name: unit, and the values by their attributes.
type Shown = BTreeMap<String, (String, Vec<(String, f64)>)>;

/// Collects when it is asked to, from the hands of the provider.
#[derive(Clone, Debug)]
struct Reader(ForgettingReader<ManualReader>);

impl Reader {
    fn new() -> Self {
        Self(ForgettingReader::new(ManualReader::default()))
    }

    fn provider(&self) -> SdkMeterProvider {
        SdkMeterProvider::builder().with_reader(self.0.clone()).build()
    }

    fn metrics(&self) -> ResourceMetrics {
        let mut metrics = ResourceMetrics::default();
        self.0.collect(&mut metrics).unwrap();
        metrics
    }

    fn read(&self) -> Shown {
        let metrics = self.metrics();
        let all = metrics.scope_metrics().flat_map(|scope| scope.metrics());
        all.map(|metric| {
            let is_fraction = ["_seconds", "_seconds_total"].iter().any(|end| metric.name().ends_with(end));
            let points = match metric.data() {
                AggregatedMetrics::F64(data) if is_fraction => points(data, |value| value),
                AggregatedMetrics::U64(data) if !is_fraction => points(data, |value| value as f64),
                AggregatedMetrics::I64(data) if !is_fraction => points(data, |value| value as f64),
                _ => panic!("{metric:?}"),
            };
            (metric.name().to_owned(), (metric.unit().to_owned(), points))
        })
        .collect()
    }
}

fn points<T: Copy + fmt::Debug>(data: &MetricData<T>, number: fn(T) -> f64) -> Vec<(String, f64)> {
    let text = |attributes: Vec<&KeyValue>| {
        let pairs = attributes.into_iter().map(|pair| format!("{}={}", pair.key, pair.value));
        pairs.collect::<Vec<_>>().join(",")
    };
    match data {
        MetricData::Gauge(gauge) => {
            gauge.data_points().map(|p| (text(p.attributes().collect()), number(p.value()))).collect()
        }
        MetricData::Sum(sum) => {
            assert!(sum.is_monotonic() && sum.temporality() == Temporality::Cumulative);
            sum.data_points().map(|p| (text(p.attributes().collect()), number(p.value()))).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// A process that is there: this one.
fn me(id: &str) -> InstanceInfo {
    InstanceInfo { id: id.into(), hypervisor_pid: Some(std::process::id()), ..InstanceInfo::default() }
}

#[test]
fn a_collection_shows_every_metric_once() {
    let reader = Reader::new();
    let provider = reader.provider();
    let looks = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&looks);
    register(&provider.meter("test"), all("hypeman_vm", Naming::Prometheus), move || {
        let tick = seen.fetch_add(1, Ordering::SeqCst) + 1;
        Some(View::default().look(&Snapshot { tick: tick as u64, ..full() }, false))
    });
    for look in 1..4 {
        let shown = reader.read();
        assert_eq!(looks.load(Ordering::SeqCst), look);
        assert_eq!(shown["vm_exporter_ticks_total"].1[0].1, look as f64);
        let expected = families::names().into_iter().filter(|family| !is_of_exports(family));
        let names: Vec<String> = expected.map(|family| family.full_name("hypeman_vm")).collect();
        assert!(names.iter().all(|name| shown.contains_key(name)), "{names:?} {shown:?}");
        let (unit, points) = &shown["hypeman_vm_network_tx_bytes_total"];
        assert_eq!(
            (unit.as_str(), points.as_slice()),
            ("By", &[("device=tap0,instance_id=a,instance_name=b,netns=4026531840".into(), 1.0)][..])
        );
    }
}

#[test]
fn an_ended_vm_has_counters_only() {
    let reader = Reader::new();
    let provider = reader.provider();
    let alive = Arc::new(AtomicUsize::new(1));
    let is_alive = Arc::clone(&alive);
    register(&provider.meter("test"), all("vm", Naming::Prometheus), move || {
        let mut snapshot = full();
        snapshot.vms[0].running = is_alive.load(Ordering::SeqCst) == 1;
        Some(View::default().look(&snapshot, false))
    });
    for (running, instances) in [(1, 1.0), (0, 0.0)] {
        alive.store(running, Ordering::SeqCst);
        let shown = reader.read();
        for name in ["vm_info", "vm_allocated_vcpus", "vm_memory_rss_bytes", "vm_network_rx_backlog_packets"]
        {
            assert_eq!(shown.contains_key(name), running == 1, "{name}");
        }
        let value = |name: &str| shown[name].1[0].1;
        assert_eq!((value("vm_running"), value("vm_exporter_instances")), (instances, instances));
        assert!(
            shown.contains_key("vm_network_tx_bytes_total") && shown.contains_key("vm_cpu_seconds_total")
        );
    }
}

fn is_of_exports(family: &Family) -> bool {
    EXPORTER_GROUPS.iter().flat_map(Group::metrics).any(|metric| metric.name == family.metric.name)
}

#[test]
fn ended_and_unknown_vms_are_not_shown() {
    let reader = Reader::new();
    let provider = reader.provider();
    let (known, gone) = (full(), Snapshot { vms: Vec::new(), ..full() });
    let looks = AtomicUsize::new(0);
    register(&provider.meter("test"), all("vm", Naming::Prometheus), move || {
        match looks.fetch_add(1, Ordering::SeqCst) {
            0 => Some(View::default().look(&known, false)),
            1 => Some(View::default().look(&gone, false)),
            2 => Some(View::default().look(&known, true)),
            _ => None,
        }
    });
    let of_vms = |shown: &BTreeMap<_, _>| {
        shown.keys().filter(|name: &&String| !name.starts_with("vm_exporter")).count()
    };
    assert!(of_vms(&reader.read()) > 20);
    let gone = reader.read();
    // How many have started and how many have ended is told without any VM.
    assert_eq!((of_vms(&gone), gone["vm_exporter_instances"].1[0].1), (2, 0.0));
    assert_eq!(of_vms(&reader.read()), 0, "too old");
    assert!(reader.read().is_empty(), "no snapshot");
}

#[test]
fn a_collection_reads_the_vms() {
    let reader = Reader::new();
    let provider = reader.provider();
    let manager = Manager::new();
    manager.set_instance_source(vec![me("a")]);
    manager.initialize_otel(Some(&provider.meter("test")));
    let first = reader.read();
    assert_eq!(first["hypeman_vm_cpu_seconds_total"].1[0].0, "instance_id=a,instance_name=a");
    assert_eq!(first["hypeman_vm_metrics_instances_observed"].1, [(String::new(), 1.0)]);
    thread::sleep(Duration::from_millis(110));
    manager.set_instance_source(vec![me("b")]);
    let second = reader.read();
    assert_eq!(
        second["hypeman_vm_memory_rss_bytes"].1.iter().filter(|(who, _)| who.contains("=b")).count(),
        1
    );
    drop(manager);
    assert!(reader.read().is_empty(), "it is not kept alive");
}

#[test]
fn two_managers_are_independent() {
    let readers = [Reader::new(), Reader::new()];
    let providers = readers.clone().map(|reader| reader.provider());
    let managers = [Manager::new(), Manager::new()];
    // The same process, and each has a name of its own for it.
    for ((manager, provider), id) in managers.iter().zip(&providers).zip(["a", "b"]) {
        manager.set_instance_source(vec![me(id)]);
        let options = OtelOptions { instruments: Instruments::All, ..OtelOptions::default() };
        manager.initialize_otel_with(Some(&provider.meter("test")), options);
    }
    for (reader, id) in readers.iter().zip(["a", "b"]) {
        let shown = reader.read();
        let of = format!("instance_id={id},instance_name={id}");
        assert_eq!(
            shown["hypeman_vm_cpu_seconds_total"].1.iter().map(|(of, _)| of).collect::<Vec<_>>(),
            [&of]
        );
        assert_eq!(shown["vm_exporter_ticks_total"].1[0].1, 1.0, "the other's look is not its own");
    }
    let [first, second] = managers;
    first.set_instance_source(Vec::new());
    first.collect();
    assert_eq!(second.latest().unwrap().tick, 1);
    assert!(second.collect_all().unwrap()[0].running);
    drop(first);
    let shown = readers.map(|reader| reader.read().len());
    assert!(shown[0] == 0 && shown[1] > 0, "{shown:?}");
}

#[test]
fn without_a_meter_nothing_is_shown() {
    Manager::new().initialize_otel(None);
}

#[test]
fn a_panic_of_a_source_ends_no_thread() {
    let reader = Reader::new();
    let provider = reader.provider();
    let manager = Manager::new();
    manager.initialize_otel(Some(&provider.meter("test")));
    manager.set_instance_source(crate::sources::InstanceListerAdapter::new(|| panic!("a fault of theirs")));
    let cpu = "hypeman_vm_cpu_seconds_total";
    assert!(!reader.read().contains_key(cpu));
    manager.set_instance_source(vec![me("a")]);
    manager.collect();
    assert!(reader.read().contains_key(cpu));
}

#[test]
fn collections_of_two_threads_are_apart() {
    let looks = AtomicUsize::new(0);
    let collections = Collections::new(families::names().len(), move || {
        let look = looks.fetch_add(1, Ordering::SeqCst) as u64;
        let mut families = families::names();
        let sample = Sample { labels: Vec::new(), value: Number::Count(look), since: None };
        families.iter_mut().for_each(|family| family.samples = vec![sample.clone()]);
        Some(families)
    });
    let collect = || {
        let mut looks = Vec::new();
        for _ in 0..200 {
            let mut of_this = Vec::new();
            for index in 0..families::names().len() {
                collections.visit(index, |families| of_this.push(families[index].samples[0].value.as_f64()));
            }
            assert!(of_this.iter().all(|look| *look == of_this[0]), "{of_this:?}");
            looks.push(of_this[0]);
        }
        looks
    };
    let mut looks = thread::scope(|scope| {
        let other = scope.spawn(collect);
        [collect(), other.join().unwrap()].concat()
    });
    looks.sort_by(f64::total_cmp);
    assert!(looks.into_iter().eq((0..400).map(f64::from)), "each collection takes its own look");
}

#[test]
fn up_down_counters_end_with_their_vm() {
    let reader = Reader::new();
    let provider = reader.provider();
    let gone = Snapshot { vms: Vec::new(), ..full() };
    let looks = AtomicUsize::new(0);
    register(&provider.meter("test"), all("vm", Naming::Otel), move || {
        let snapshot = if looks.fetch_add(1, Ordering::SeqCst) == 0 { full() } else { gone.clone() };
        Some(View::default().look(&snapshot, false))
    });
    let names = || -> Vec<String> {
        let metrics = reader.metrics();
        metrics
            .scope_metrics()
            .flat_map(|scope| scope.metrics())
            .map(|metric| metric.name().to_owned())
            .collect()
    };
    assert!(names().contains(&"vm.memory.usage".to_owned()));
    assert!(!names().contains(&"vm.memory.usage".to_owned()));
}
