//! Compares the JSON API with its own description.

use std::path::Path;

use serde_json::{Value, json};
use utoipa::OpenApi;
use vm_metrics::http::Description;
use vm_metrics_testkit::daemon::Daemon;

use crate::fixture::Fixture;

/// The description in the repository.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");

fn get(daemon: &Daemon, path: &str) -> (u16, Option<String>, Value) {
    let answer = daemon.get(path, None).unwrap();
    let content_type = answer.header("content-type").map(str::to_owned);
    (answer.status, content_type, serde_json::from_slice(&answer.body).unwrap())
}

/// Fails unless the value matches the description of `GET path` with this status.
fn assert_described(path: &str, status: u16, value: &Value) {
    let faults = faults(path, "get", Body::Answer(status), value);
    assert!(faults.is_empty(), "{path} {status}: {faults:?}\n{value:#}");
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Body {
    Request,
    /// A response with this status.
    Answer(u16),
}

/// Lists the differences between a body and its description.
pub(crate) fn faults(path: &str, method: &str, body: Body, value: &Value) -> Vec<String> {
    let description = serde_json::to_value(Description::openapi()).unwrap();
    let operation = &description["paths"][path][method];
    let described = match body {
        Body::Request => &operation["requestBody"],
        Body::Answer(status) => &operation["responses"][status.to_string()],
    };
    let content = described["content"].as_object();
    let content = content.unwrap_or_else(|| panic!("{method} {path}: {body:?} is not described"));
    let mut schema = content.values().next().unwrap()["schema"].clone();
    // References in the schema point into the rest of the document.
    schema["components"] = description["components"].clone();
    let validator = jsonschema::validator_for(&schema).unwrap();
    validator.iter_errors(value).map(|fault| fault.to_string()).collect()
}

#[test]
fn every_response_matches_the_description() {
    let daemon = Fixture::new("mixed").serve();
    daemon.metrics().unwrap();
    for path in ["/vms", "/health", "/sources"] {
        let (status, content_type, value) = get(&daemon, &format!("/api/v1{path}"));
        assert_eq!((status, content_type.as_deref()), (200, Some("application/json")), "{path}");
        assert_described(path, 200, &value);
    }
    let (status, content_type, value) = get(&daemon, "/api/v1/vms/nobody");
    assert_eq!((status, content_type.as_deref()), (404, Some("application/problem+json")));
    assert_described("/vms/{id}", 404, &value);
    assert!(value["detail"].as_str().unwrap().contains("\"nobody\""), "{value}");
}

/// Guards the comparison itself: a wrong type or a missing field must be a difference.
#[test]
fn the_description_detects_wrong_types_and_missing_fields() {
    let daemon = Fixture::new("mixed").serve();
    daemon.metrics().unwrap();
    let (_, _, good) = get(&daemon, "/api/v1/health");
    for spoilt in [json!("yes"), Value::Null] {
        let mut value = good.clone();
        if spoilt.is_null() {
            value.as_object_mut().unwrap().remove("healthy");
        } else {
            value["healthy"] = spoilt;
        }
        let described = std::panic::catch_unwind(|| assert_described("/health", 200, &value));
        assert!(described.is_err(), "{value}");
    }
}

/// The fields of the Go service come first, and those of this daemon follow.
#[test]
fn one_vm_has_the_go_service_fields() {
    let daemon = Fixture::new("mixed").serve();
    daemon.metrics().unwrap();
    let id = "6f1b3a7e-0000-4000-8000-000000000001";
    let (status, _, vm) = get(&daemon, &format!("/api/v1/vms/{id}"));
    assert_eq!(status, 200);
    assert_described("/vms/{id}", 200, &vm);
    for (field, expected) in [
        ("instance_id", json!(id)),
        ("instance_name", json!("web")),
        ("cpu_seconds", json!(130.23)),
        ("memory_rss_bytes", json!(1_228_800_000)),
        ("memory_vms_bytes", json!(3_276_800_000_u64)),
        ("network_rx_bytes", json!(600_000)),
        ("network_tx_bytes", json!(3000)),
        ("allocated_vcpus", json!(4)),
        ("allocated_memory_bytes", json!(2_147_483_648_u64)),
    ] {
        assert_eq!(vm[field], expected, "{field}");
    }
    let ratio = vm["memory_utilization_ratio"].as_f64().unwrap();
    assert!((ratio - 1_228_800_000.0 / 2_147_483_648.0).abs() < 1e-9, "{ratio}");
    let (_, _, all) = get(&daemon, "/api/v1/vms");
    assert!(all["vms"].as_array().unwrap().contains(&vm));
}

#[test]
fn all_errors_are_problems() {
    let daemon = Fixture::new("mixed").serve();
    daemon.metrics().unwrap();
    for (method, path, status, wording) in [
        ("GET", "/api/v1", 404, "/api/v1/openapi.json"),
        ("GET", "/api/v1/vm", 404, "/api/v1/openapi.json"),
        ("GET", "/api/v1/vms/", 404, "/api/v1/openapi.json"),
        ("GET", "/api/v1/vms/a/b", 404, "/api/v1/openapi.json"),
        ("GET", "/api/v1/vms/no%20body", 404, "\"no body\""),
        ("GET", "/api/v1/vms/%ff", 400, "UTF-8"),
        ("GET", "/metric", 404, "/api/v1/openapi.json"),
        ("GET", "/api/v2/vms", 404, "/api/v1/openapi.json"),
        ("DELETE", "/api/v1/vms", 405, "GET"),
        ("PUT", "/api/v1/vms/a", 405, "GET"),
        ("PUT", "/api/v1/instances/a", 404, "/api/v1/openapi.json"),
    ] {
        let answer = daemon.request(method, path).unwrap();
        let expected = (status, Some("application/problem+json"));
        assert_eq!((answer.status, answer.header("content-type")), expected, "{method} {path}");
        let problem: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_described("/vms/{id}", 400, &problem);
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().unwrap().contains(wording), "{method} {path}: {problem}");
    }
}

#[test]
fn the_repository_description_equals_the_served_one() {
    let text = Description::openapi().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(PAGE, &text).unwrap();
    }
    let page = std::fs::read_to_string(Path::new(PAGE)).unwrap();
    assert!(page == text, "docs/openapi.json is old: run with UPDATE_GOLDEN=1");
    let daemon = Fixture::new("empty").serve();
    let (status, _, served) = get(&daemon, "/api/v1/openapi.json");
    assert_eq!((status, served), (200, serde_json::from_str(&text).unwrap()));
}
