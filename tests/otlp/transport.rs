//! Transport of the push: TLS, compression, OpenTelemetry variables.

use std::path::Path;

use vm_metrics_testkit::otlp::OtlpSink;
use vm_metrics_testkit::wait::SOON;

use crate::setup::{Setup, attributes, metrics, often};

/// Returns both protocols with the sink's address for each.
fn both(sink: &OtlpSink) -> [(&'static str, String); 2] {
    [("grpc", format!("https://{}", sink.grpc())), ("http/protobuf", format!("https://{}", sink.http()))]
}

#[test]
fn tls_trusts_only_the_configured_ca() {
    let dir = tempfile::tempdir().unwrap();
    let sink = OtlpSink::start(&["--tls", dir.path().to_str().unwrap()]).unwrap();
    let ca = dir.path().join("ca.pem");
    for (number, (protocol, endpoint)) in both(&sink).into_iter().enumerate() {
        let trusting = format!("protocol = \"{protocol}\"\nca_file = {ca:?}");
        let daemon = Setup { otlp: often(&endpoint, &trusting), ..Setup::default() }.serve();
        daemon.wait_for_exports("success", 1.0);
        drop(daemon);
        let known = sink.requests().len();
        assert!(known > number, "{protocol}");

        let strange = format!("protocol = \"{protocol}\"");
        let daemon = Setup { otlp: often(&endpoint, &strange), ..Setup::default() }.serve();
        daemon.wait_for_exports("failure", 1.0);
        assert_eq!(daemon.exports("success"), 0.0);
        assert_eq!(sink.requests().len(), known, "{protocol}: an untrusted sink gets nothing");
    }
}

#[test]
fn tls_presents_its_client_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let sink = OtlpSink::start(&["--mutual", "--tls", dir.path().to_str().unwrap()]).unwrap();
    let file = |name: &str| dir.path().join(name);
    let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
    for (protocol, endpoint) in both(&sink) {
        let known = format!("protocol = \"{protocol}\"\nca_file = {ca:?}");
        let daemon = Setup { otlp: often(&endpoint, &known), ..Setup::default() }.serve();
        daemon.wait_for_exports("failure", 1.0);
        let shown = format!("{known}\ncert_file = {cert:?}\nkey_file = {key:?}");
        let daemon = Setup { otlp: often(&endpoint, &shown), ..Setup::default() }.serve();
        daemon.wait_for_exports("success", 1.0);
    }
}

#[test]
fn a_missing_certificate_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let text = "[exporters.otlp]\nenabled = true\nendpoint = \"https://localhost:1\"\nca_file = \"/nowhere/ca.pem\"\n";
    std::fs::write(&config, text).unwrap();
    let mut command = std::process::Command::new(Path::new(env!("CARGO_BIN_EXE_vm-metrics")));
    command.args(["serve", "--no-ebpf", "--listen", "127.0.0.1:0", "--config"]).arg(&config);
    let output = command.output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("otlp: TLS: cannot read /nowhere/ca.pem: "), "{message}");
}

#[test]
fn a_push_can_be_compressed() {
    let sink = OtlpSink::start(&[]).unwrap();
    for (protocol, address) in [("grpc", sink.grpc()), ("http/protobuf", sink.http())] {
        let more = format!("protocol = \"{protocol}\"\ncompression = \"gzip\"");
        let daemon = Setup { otlp: often(&format!("http://{address}"), &more), ..Setup::default() }.serve();
        daemon.wait_for_exports("success", 1.0);
    }
    let last = sink.requests().pop().unwrap();
    assert_eq!(last["headers"]["content-encoding"], "gzip");
    assert!(metrics(&last).len() > 10);
}

#[test]
fn the_variables_of_opentelemetry_are_enough() {
    let sink = OtlpSink::start(&[]).unwrap();
    let endpoint = format!("http://{}", sink.grpc());
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a%20b"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
        ("OTEL_RESOURCE_ATTRIBUTES", "rack=r1,service.name=hidden"),
        ("OTEL_SERVICE_NAME", "fleet"),
    ];
    let daemon = Setup { variables: &variables, ..Setup::default() }.serve();
    let request = sink.wait_for_request(SOON).unwrap();
    assert_eq!((&request["transport"], &request["headers"]["x-tenant"]), (&"grpc".into(), &"a b".into()));
    let resource = attributes(&request["request"]["resourceMetrics"][0]["resource"]);
    for (key, value) in [("rack", "r1"), ("service.name", "fleet")] {
        assert!(resource.contains(&(key.to_owned(), value.to_owned())), "{resource:?}");
    }
    drop(daemon);

    // Variables override the file, but the file may still switch the push off.
    let sink = OtlpSink::start(&[]).unwrap();
    let endpoint = format!("http://{}", sink.http());
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    let off =
        Setup { otlp: Some("enabled = false".to_owned()), variables: &variables, ..Setup::default() }.serve();
    assert!(
        off.daemon
            .metrics()
            .unwrap()
            .value("vm_exporter_otlp_exports_total", &[("result", "success")])
            .is_none()
    );
    let on =
        Setup { otlp: often("http://localhost:1", ""), variables: &variables, ..Setup::default() }.serve();
    on.wait_for_exports("success", 1.0);
}
