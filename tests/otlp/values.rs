//! Compares the push with `/metrics`, field by field.

use std::collections::BTreeMap;

use serde_json::Value;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::otlp::OtlpSink;
use vm_metrics_testkit::wait::SOON;

use crate::setup::{Setup, attributes, metrics, often};

/// Kind, and the values by labels.
type Families = BTreeMap<String, (String, BTreeMap<Vec<(String, String)>, f64>)>;

#[test]
fn grpc_pushes_the_values_of_metrics() {
    let sink = OtlpSink::start(&[]).unwrap();
    let more = "protocol = \"grpc\"\nheaders = { \"X-Tenant\" = \"a %20b\" }";
    compare(&sink, "grpc", often(&format!("http://{}", sink.grpc()), more));
}

#[test]
fn http_pushes_the_values_of_metrics() {
    let sink = OtlpSink::start(&[]).unwrap();
    let more = "headers = { \"X-Tenant\" = \"a %20b\" }";
    compare(&sink, "http", often(&format!("http://{}", sink.http()), more));
}

fn compare(sink: &OtlpSink, transport: &str, otlp: Option<String>) {
    let daemon = Setup { otlp, ..Setup::default() }.serve();
    let request = sink.wait_for_request(SOON).unwrap();
    assert_eq!(request["transport"], transport);
    assert_eq!(request["headers"]["x-tenant"], "a %20b");
    if transport == "http" {
        assert_eq!(
            (request["path"].as_str(), &request["headers"]["content-type"]),
            (Some("/v1/metrics"), &"application/x-protobuf".into())
        );
    }

    let scraped = of_vms(scraped(&daemon.daemon.metrics().unwrap()));
    let all = pushed(&request);
    assert_eq!(all["vm_exporter_ticks_total"].1.values().collect::<Vec<_>>(), [&1.0], "one snapshot");
    assert!(scraped.len() > 10 && scraped.contains_key("vm_network_tx_bytes_total"), "{scraped:?}");
    assert_eq!(of_vms(all), scraped);
    check_fields(&request);

    let resource = attributes(&request["request"]["resourceMetrics"][0]["resource"]);
    let resource: BTreeMap<_, _> = resource.into_iter().collect();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let expected = [
        ("host.name", host.clone()),
        ("service.instance.id", format!("{host}:0")),
        ("service.name", "vm-metrics".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("telemetry.sdk.name", "opentelemetry".to_owned()),
    ];
    for (key, value) in expected {
        assert_eq!(resource.get(key), Some(&value), "{key} of {resource:?}");
    }
}

/// Checks unit, description, temporality and times, which `/metrics` lacks.
fn check_fields(request: &Value) {
    let time = |point: &Value, field: &str| point[field].as_str().unwrap().parse::<u64>().unwrap();
    for metric in metrics(request) {
        let name = metric["name"].as_str().unwrap();
        let message = metric["unit"].as_str().unwrap_or_default();
        let unit = match name {
            _ if name.ends_with("_bytes_total") || name.ends_with("_bytes") => "By",
            _ if name.ends_with("_seconds_total") || name.ends_with("_seconds") => "s",
            _ if name.ends_with("_packets_total") => "{packet}",
            // A store with Prometheus naming would call a gauge of unit 1 a ratio.
            _ => message.trim_start_matches('1'),
        };
        assert_eq!(message, unit, "{name}");
        assert!(metric["description"].as_str().unwrap().ends_with('.'), "{name}");
        if name.ends_with("_total") {
            let sum = &metric["sum"];
            assert_eq!(sum["aggregationTemporality"], "AGGREGATION_TEMPORALITY_CUMULATIVE", "{name}");
            assert_eq!(sum["isMonotonic"], true, "{name}");
            for point in sum["dataPoints"].as_array().unwrap() {
                let (start, end) = (time(point, "startTimeUnixNano"), time(point, "timeUnixNano"));
                assert!(0 < start && start < end, "{name}: {start} to {end}");
            }
        }
    }
}

/// The push adds the rest up, and the scrape may still show every VM.
#[test]
fn beyond_the_budget_the_rest_is_aggregated() {
    let sink = OtlpSink::start(&[]).unwrap();
    let more = "label_budget = 1\nover_budget = \"aggregate\"";
    let otlp = often(&format!("http://{}", sink.http()), more);
    let daemon = Setup { otlp, ..Setup::default() }.serve();
    let (pushed, scraped) =
        (pushed(&sink.wait_for_request(SOON).unwrap()), scraped(&daemon.daemon.metrics().unwrap()));
    let ids = |families: &Families| -> Vec<String> {
        let keys = families["vm_cpu_seconds_total"].1.keys();
        keys.map(|labels| labels.iter().find(|(name, _)| name == "instance_id").unwrap().1.clone()).collect()
    };
    assert_eq!((ids(&pushed).len(), ids(&scraped).len()), (2, 3));
    assert!(ids(&pushed).contains(&"other".to_owned()));
    for name in
        ["vm_cpu_seconds_total", "vm_memory_rss_bytes", "vm_allocated_vcpus", "vm_network_tx_bytes_total"]
    {
        let sum = |families: &Families| families[name].1.values().sum::<f64>();
        assert!((sum(&pushed) - sum(&scraped)).abs() < 1e-6, "{name}");
    }
    let budget = |name: &str| daemon.daemon.metrics().unwrap().value(name, &[("exporter", "otlp")]);
    assert_eq!(budget("vm_exporter_instances_observed"), Some(3.0));
    assert_eq!(budget("vm_exporter_label_budget_exceeded_total"), Some(1.0));
    assert_eq!(daemon.daemon.log().matches("more than the label budget of 1").count(), 1);
}

#[test]
fn the_go_prefix_yields_the_go_names() {
    let sink = OtlpSink::start(&[]).unwrap();
    let otlp = often(&format!("http://{}", sink.grpc()), "protocol = \"grpc\"");
    let _pushing = Setup { otlp, keys: "metric_prefix = \"hypeman_vm\"", ..Setup::default() }.serve();
    let pushed = pushed(&sink.wait_for_request(SOON).unwrap());
    for (name, kind) in [
        ("hypeman_vm_cpu_seconds_total", "counter"),
        ("hypeman_vm_allocated_vcpus", "gauge"),
        ("hypeman_vm_memory_rss_bytes", "gauge"),
        ("hypeman_vm_memory_vms_bytes", "gauge"),
        ("hypeman_vm_allocated_memory_bytes", "gauge"),
        ("hypeman_vm_network_rx_bytes_total", "counter"),
        ("hypeman_vm_network_tx_bytes_total", "counter"),
        ("hypeman_vm_metrics_instances_observed", "gauge"),
        ("hypeman_vm_metrics_label_budget_exceeded_total", "counter"),
    ] {
        let (of, points) = pushed.get(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(of, kind, "{name}");
        let label = if name.contains("_metrics_") { "exporter" } else { "instance_id" };
        assert!(points.keys().all(|labels| labels.iter().any(|(of, _)| of == label)), "{name}: {points:?}");
    }
    let is_known = |name: &String| name.starts_with("hypeman_vm_") || name.starts_with("vm_exporter_");
    assert!(pushed.keys().all(is_known), "{:?}", pushed.keys());
}

#[test]
fn the_scrape_has_a_budget_of_its_own() {
    let tables = "[exporters.prometheus]\nlabel_budget = 2\nover_budget = \"aggregate\"";
    let daemon = Setup { tables, ..Setup::default() }.serve();
    let metrics = daemon.daemon.metrics().unwrap();
    assert_eq!(metrics.samples("vm_cpu_seconds_total").count(), 3);
    assert!(metrics.value("vm_cpu_seconds_total", &[("instance_id", "other")]).is_some());
    assert_eq!(metrics.samples("vm_running").count(), 2);
    assert_eq!(metrics.value("vm_exporter_instances_observed", &[("exporter", "prometheus")]), Some(3.0));
}

fn of_vms(families: Families) -> Families {
    families
        .into_iter()
        .filter(|(name, _)| name.starts_with("vm_") && !name.starts_with("vm_exporter_"))
        .collect()
}

fn scraped(metrics: &Metrics) -> Families {
    let family = |name: &str| {
        let sample = |sample: &vm_metrics_testkit::metrics_text::Sample| {
            let mut labels = sample.labels.clone();
            labels.sort();
            (labels, sample.value)
        };
        let samples = metrics.samples(name).map(sample).collect();
        (name.to_owned(), (metrics.kind(name).unwrap().to_owned(), samples))
    };
    metrics.families().into_iter().map(family).collect()
}

fn pushed(request: &Value) -> Families {
    let family = |metric: &Value| {
        let is_sum = metric["sum"].is_object();
        let (kind, data) = if is_sum { ("counter", &metric["sum"]) } else { ("gauge", &metric["gauge"]) };
        let points = data["dataPoints"].as_array().unwrap();
        let values: BTreeMap<_, _> =
            points.iter().map(|point| (attributes(point), number(metric, point))).collect();
        assert_eq!(values.len(), points.len(), "a series twice: {metric}");
        (metric["name"].as_str().unwrap().to_owned(), (kind.to_owned(), values))
    };
    metrics(request).iter().map(family).collect()
}

/// The push sends integers as integers, which JSON writes as text.
fn number(metric: &Value, point: &Value) -> f64 {
    if metric["unit"] == "s" {
        return point["asDouble"].as_f64().unwrap();
    }
    point["asInt"].as_str().unwrap().parse().unwrap()
}
