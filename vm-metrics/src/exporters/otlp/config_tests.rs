//! Keys and variables of the push, and the errors for wrong ones.

use std::path::Path;

use super::*;
use crate::config::{Config, DEFAULT};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

fn push(text: &str, environment: &[(&str, &str)]) -> Result<Option<OtlpConfig>, String> {
    let mut config = Config::parse(Path::new("test.toml"), text).unwrap();
    let read = |name: &str| {
        environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    configure(&config.exporters.take("otlp"), &config.settings, &read).map_err(|error| error.to_string())
}

fn on(keys: &str, environment: &[(&str, &str)]) -> OtlpConfig {
    push(&format!("[exporters.otlp]\nenabled = true\n{keys}"), environment).unwrap().unwrap()
}

#[test]
fn the_printed_default_is_the_default() {
    let printed = DEFAULT.replace("enabled = \"auto\"", "enabled = true");
    assert_eq!(push(&printed, &[]).unwrap().unwrap(), on("", &[]));
}

#[test]
fn enabled_or_an_endpoint_switches_it_on() {
    let collector = (ENDPOINT, "http://collector:4318");
    let is_on = |text: &str, environment: &[_]| push(text, environment).unwrap().is_some();
    assert!(!is_on("", &[]));
    assert!(is_on("", &[collector]));
    assert!(is_on("", &[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://collector:4318/x")]));
    assert!(!is_on("[exporters.otlp]\nenabled = false\n", &[collector]));
    for no in [("OTEL_SDK_DISABLED", "true"), ("OTEL_METRICS_EXPORTER", "none")] {
        assert!(!is_on("[exporters.otlp]\nenabled = true\n", &[collector, no]), "{no:?}");
    }
}

#[test]
fn a_general_endpoint_gets_the_metrics_path() {
    let endpoint = |keys: &str, environment: &[_]| on(keys, environment).endpoint;
    assert_eq!(endpoint("", &[]), "http://localhost:4318/v1/metrics");
    assert_eq!(endpoint("protocol = \"grpc\"", &[]), "http://localhost:4317");
    assert_eq!(endpoint("endpoint = \"http://a:1/\"", &[]), "http://a:1/v1/metrics");
    assert_eq!(endpoint("endpoint = \"http://a:1/v1/metrics\"", &[]), "http://a:1/v1/metrics");
    let all = (ENDPOINT, "http://b:2/x");
    assert_eq!(endpoint("endpoint = \"http://a:1\"", &[all]), "http://b:2/x/v1/metrics", "it counts more");
    let metrics = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://c:3/own");
    assert_eq!(endpoint("", &[all, metrics]), "http://c:3/own", "as it is");
    let grpc = [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), (ENDPOINT, "d:4")];
    assert_eq!(endpoint("", &grpc), "https://d:4");
    let insecure = [grpc[0], grpc[1], ("OTEL_EXPORTER_OTLP_INSECURE", "true")];
    assert_eq!(endpoint("", &insecure), "http://d:4");
}

#[test]
fn logs_show_no_secret_of_the_endpoint() {
    let push = on("endpoint = \"https://user:secret@collector:4318/a@b?token=secret\"", &[]);
    assert_eq!(push.shown_endpoint(), "https://collector:4318/a@b");
    assert_eq!(on("", &[]).shown_endpoint(), "http://localhost:4318/v1/metrics");
}

#[test]
fn variables_override_keys() {
    let keys = "headers = { a = \"file\", b = \"file\" }\ninterval = \"5s\"\ntimeout = \"6s\"\n\
        resource = { \"service.name\" = \"file\", \"x\" = \"file\" }\nca_file = \"/file\"\n";
    let of_file = on(keys, &[]);
    assert_eq!((of_file.interval, of_file.timeout), (Duration::from_secs(5), Duration::from_secs(6)));
    let push = on(
        keys,
        &[
            ("OTEL_EXPORTER_OTLP_HEADERS", "b=environment%20"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1700"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "800"),
            ("OTEL_METRIC_EXPORT_TIMEOUT", "900"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=attribute,y=attribute"),
            ("OTEL_SERVICE_NAME", "variable"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/environment"),
        ],
    );
    let pairs =
        |map: &BTreeMap<String, String>| map.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
    assert_eq!(pairs(&push.headers), ["a=file", "b=environment "]);
    assert_eq!((push.interval, push.timeout), (Duration::from_millis(1700), Duration::from_millis(800)));
    assert!(push.gzip && !of_file.gzip);
    let whole = (of_file.timeout_of_all, push.timeout_of_all);
    assert_eq!(whole, (Duration::from_secs(6), Duration::from_millis(900)));
    assert_eq!(pairs(&push.resource), ["service.name=variable", "x=file", "y=attribute"]);
    assert_eq!(push.tls.ca, Some("/environment".into()));
}

#[test]
fn errors_name_the_key_or_the_variable() {
    for (keys, expected) in [
        ("endpoint = \"collector\"", "test.toml:2: exporters.otlp: endpoint: must be an address such as"),
        ("\nprotocol = \"udp\"", "test.toml:3: exporters.otlp: protocol: must be"),
        ("compression = \"zip\"", "test.toml:2: exporters.otlp: compression: must be"),
        ("interval = \"0s\"", "test.toml:2: exporters.otlp: interval: must be between 1s and 1day"),
        ("interval = \"1ns\"", "test.toml:2: exporters.otlp: interval: must be between 1s and 1day"),
        ("interval = \"999ms\"", "test.toml:2: exporters.otlp: interval: must be between 1s and 1day"),
        ("timeout = \"1ns\"", "test.toml:2: exporters.otlp: timeout: must be between 100ms and 1h"),
        ("timeout = \"2h\"", "test.toml:2: exporters.otlp: timeout: must be between 100ms and 1h"),
        ("timeout = \"soon\"", "test.toml:2: exporters.otlp: timeout: this is not a duration"),
        ("cert_file = \"/x\"", "test.toml:2: exporters.otlp: cert_file: key_file is missing"),
        ("headers = { \"a b\" = \"c\" }", "test.toml:2: exporters.otlp: headers: \"a b\" cannot be a header"),
        ("endpiont = \"x\"", "test.toml:2: exporters.otlp: unknown key `endpiont`"),
        ("enabled = 1", "test.toml:2: exporters.otlp: enabled must be"),
    ] {
        let error = push(&format!("[exporters.otlp]\n{keys}\n"), &[]).unwrap_err();
        assert!(error.starts_with(expected), "{keys:?} gives {error:?}");
    }
    for (variable, value) in [
        (ENDPOINT, "nowhere"),
        (ENDPOINT, "htp://user:secret@collector"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "0"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "99"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "999"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "secret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
    ] {
        let error = push("[exporters.otlp]\nenabled = true\n", &[(variable, value)]).unwrap_err();
        assert!(error.starts_with(&format!("variable {variable}: ")), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
