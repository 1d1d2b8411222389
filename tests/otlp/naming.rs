//! With semantic-convention names the push has the values of `/metrics`.

use std::collections::BTreeMap;

use serde_json::Value;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::otlp::OtlpSink;
use vm_metrics_testkit::wait::SOON;

use crate::setup::{Setup, metrics, often};

/// A name in `/metrics`, the name, kind and unit in the push, and the distinguishing attribute.
type Pair = (&'static str, &'static str, Kind, &'static str, Attribute);

type Attribute = Option<(&'static str, &'static str)>;

/// Metrics of a VM.
const PAIRS: &[Pair] = &[
    ("vm_running", "vm.running", UP_DOWN, "{vm}", None),
    ("vm_start_time_seconds", "vm.start_time", GAUGE, "s", None),
    ("vm_cpu_seconds_total", "vm.cpu.time", COUNTER, "s", None),
    ("vm_allocated_vcpus", "vm.cpu.logical.count", UP_DOWN, "{cpu}", None),
    ("vm_memory_rss_bytes", "vm.memory.usage", UP_DOWN, "By", None),
    ("vm_memory_vms_bytes", "vm.memory.virtual", UP_DOWN, "By", None),
    ("vm_memory_shmem_bytes", "vm.memory.resident", UP_DOWN, "By", Some(("vm.memory.type", "shmem"))),
    ("vm_allocated_memory_bytes", "vm.memory.limit", UP_DOWN, "By", None),
    ("vm_memory_swap_bytes", "vm.paging.usage", UP_DOWN, "By", None),
    ("vm_disk_read_bytes_total", "vm.disk.io", COUNTER, "By", Some(("disk.io.direction", "read"))),
    ("vm_disk_write_bytes_total", "vm.disk.io", COUNTER, "By", Some(("disk.io.direction", "write"))),
    ("vm_network_rx_bytes_total", "vm.network.io", COUNTER, "By", RECEIVE),
    ("vm_network_tx_bytes_total", "vm.network.io", COUNTER, "By", TRANSMIT),
    ("vm_network_rx_packets_total", "vm.network.packet.count", COUNTER, "{packet}", RECEIVE),
    ("vm_network_tx_packets_total", "vm.network.packet.count", COUNTER, "{packet}", TRANSMIT),
    ("vm_network_rx_dropped_packets_total", "vm.network.packet.dropped", COUNTER, "{packet}", RECEIVE),
    ("vm_network_tx_dropped_packets_total", "vm.network.packet.dropped", COUNTER, "{packet}", TRANSMIT),
    ("vm_network_rx_errors_total", "vm.network.errors", COUNTER, "{error}", RECEIVE),
];

const RECEIVE: Attribute = Some(("network.io.direction", "receive"));
const TRANSMIT: Attribute = Some(("network.io.direction", "transmit"));

/// Whether the metric is a sum, and whether the sum is monotonic.
type Kind = (bool, bool);

const COUNTER: Kind = (true, true);
const UP_DOWN: Kind = (true, false);
const GAUGE: Kind = (false, false);

/// Labels that keep their value under another name.
const RENAMED: &[(&str, &str)] = &[
    ("instance_id", "vm.id"),
    ("instance_name", "vm.name"),
    ("device", "network.interface.name"),
    ("reason", "vm.network.drop.reason"),
];

/// Values by attributes.
type Points = BTreeMap<BTreeMap<String, String>, f64>;

#[test]
fn names_of_the_conventions_have_the_same_values() {
    let sink = OtlpSink::start(&[]).unwrap();
    let otlp = often(&format!("http://{}", sink.http()), "naming = \"otel\"");
    let daemon = Setup { otlp, ..Setup::default() }.serve();
    let request = sink.wait_for_request(SOON).unwrap();
    let pushed: BTreeMap<&str, &Value> =
        metrics(&request).iter().map(|metric| (metric["name"].as_str().unwrap(), metric)).collect();
    assert!(pushed.keys().all(|name| name.starts_with("vm.")), "{:?}", pushed.keys());
    let all = daemon.daemon.metrics().unwrap();
    for (name, convention, kind, unit, attribute) in PAIRS {
        let metric = pushed.get(convention).unwrap_or_else(|| panic!("no {convention}"));
        let sum = &metric["sum"];
        assert_eq!((sum.is_object(), sum["isMonotonic"] == true), *kind, "{convention}");
        assert_eq!(metric["unit"], *unit, "{convention}");
        let of_pair: Points = points(metric)
            .into_iter()
            .filter(|(attributes, _)| {
                attribute.is_none_or(|(key, value)| attributes.get(key).is_some_and(|is| is == value))
            })
            .collect();
        let scraped = scraped(&all, name, *attribute);
        assert!(!scraped.is_empty(), "{name} of the fixture");
        assert_eq!(of_pair, scraped, "{name} and {convention}");
    }
}

#[test]
fn the_prefix_replaces_a_names_first_word() {
    let sink = OtlpSink::start(&[]).unwrap();
    let otlp = often(&format!("http://{}", sink.http()), "naming = \"otel\"");
    let _pushing = Setup { otlp, keys: "metric_prefix = \"guest\"", ..Setup::default() }.serve();
    let request = sink.wait_for_request(SOON).unwrap();
    let names: Vec<&str> = metrics(&request).iter().map(|metric| metric["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"guest.cpu.time") && names.contains(&"vm.exporter.tick.count"), "{names:?}");
    assert!(
        names.iter().all(|name| name.starts_with("guest.") || name.starts_with("vm.exporter.")),
        "{names:?}"
    );
}

fn points(metric: &Value) -> Points {
    let data = if metric["sum"].is_object() { &metric["sum"] } else { &metric["gauge"] };
    let point = |point: &Value| {
        let pairs = point["attributes"].as_array().unwrap().iter();
        let pair = |pair: &Value| {
            let value = &pair["value"];
            let text = value["stringValue"].as_str().or(value["intValue"].as_str());
            (pair["key"].as_str().unwrap().to_owned(), text.unwrap().to_owned())
        };
        let whole = point["asInt"].as_str().map(|text| text.parse().unwrap());
        (pairs.map(pair).collect(), whole.or(point["asDouble"].as_f64()).unwrap())
    };
    data["dataPoints"].as_array().unwrap().iter().map(point).collect()
}

fn scraped(metrics: &Metrics, name: &str, attribute: Attribute) -> Points {
    let renamed = |(label, value): &(String, String)| {
        let (_, key) =
            RENAMED.iter().find(|(of, _)| of == label).unwrap_or_else(|| panic!("{label} of {name}"));
        ((*key).to_owned(), value.clone())
    };
    let attribute = attribute.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let point = |sample: &vm_metrics_testkit::metrics_text::Sample| {
        (sample.labels.iter().map(renamed).chain(attribute.clone()).collect(), sample.value)
    };
    metrics.samples(name).map(point).collect()
}
