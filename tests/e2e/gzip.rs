//! Compressed responses equal the plain ones after the program gzip unpacked them.

use std::io::Write;
use std::process::{Command, Stdio};

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::http::{self, Response};

use crate::fixture::Fixture;

const PROTOBUF: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

fn get(daemon: &Daemon, path: &str, headers: &[(&str, &str)]) -> Response {
    let answer = http::request_with(daemon.address(), "GET", path, headers).unwrap();
    assert_eq!(answer.status, 200, "{path}");
    answer
}

fn is_compressed(answer: &Response) -> bool {
    answer.header("content-encoding") == Some("gzip")
}

fn decompress(answer: &Response) -> Vec<u8> {
    assert!(is_compressed(answer), "{:?}", answer.headers);
    let mut gzip = Command::new("gzip");
    let mut gzip = gzip.arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = gzip.stdin.take().unwrap();
    let body = answer.body.clone();
    let writer = std::thread::spawn(move || input.write_all(&body).unwrap());
    let output = gzip.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "gzip finds a fault");
    output.stdout
}

/// Serves the numbers of a single tick, so that all responses agree.
fn serve() -> Daemon {
    Fixture::with("mixed", "interval = \"1h\"", "").serve()
}

#[test]
fn the_compressed_api_equals_the_plain_one() {
    let daemon = serve();
    for path in ["/api/v1/vms", "/api/v1/openapi.json"] {
        let plain = get(&daemon, path, &[]);
        let compressed = get(&daemon, path, &[("Accept-Encoding", "br, gzip;q=0.5")]);
        assert_eq!(decompress(&compressed), plain.body, "{path}");
        assert!(compressed.body.len() * 2 < plain.body.len(), "{path}");
        for answer in [&plain, &compressed] {
            assert_eq!(answer.header("vary"), Some("accept-encoding"), "{path}");
            assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        }
        assert!(!is_compressed(&plain));
    }
}

/// Only the age of the numbers may differ.
#[test]
fn compressed_metrics_equal_the_plain_ones() {
    let daemon = serve();
    let lines = |text: Vec<u8>| -> Vec<String> {
        let text = String::from_utf8(text).unwrap();
        text.lines().filter(|line| !line.contains("_age_")).map(str::to_owned).collect()
    };
    let plain = get(&daemon, "/metrics", &[]);
    let compressed = get(&daemon, "/metrics", &[("Accept-Encoding", "gzip")]);
    assert_eq!(lines(decompress(&compressed)), lines(plain.body.clone()));
    let headers = |answer: &Response| -> Vec<String> {
        let vary = answer.headers.iter().filter(|(name, _)| name == "vary");
        vary.map(|(_, value)| value.clone()).collect()
    };
    assert_eq!(headers(&compressed), ["accept-encoding", "accept"]);

    let plain = get(&daemon, "/metrics", &[("Accept", PROTOBUF)]);
    let compressed = get(&daemon, "/metrics", &[("Accept", PROTOBUF), ("Accept-Encoding", "gzip")]);
    assert_eq!(decompress(&compressed).len(), plain.body.len());
    assert!(compressed.header("content-type").unwrap().starts_with("application/vnd.google.protobuf"));
}

#[test]
fn short_or_refused_responses_stay_uncompressed() {
    let daemon = serve();
    for (path, accepted) in [
        ("/api/v1/vms/fc-1", "gzip"),
        ("/-/ready", "gzip"),
        ("/metrics", "gzip;q=0, *"),
        ("/metrics", "identity"),
        ("/metrics", "br"),
        ("/api/v1/vms", ""),
    ] {
        let answer = get(&daemon, path, &[("Accept-Encoding", accepted)]);
        assert!(!is_compressed(&answer), "{path} {accepted:?}");
        std::str::from_utf8(&answer.body).unwrap();
    }
}

#[test]
fn head_has_the_compressed_length() {
    let daemon = serve();
    let gzip = [("Accept-Encoding", "gzip")];
    let length = get(&daemon, "/api/v1/vms", &gzip).body.len().to_string();
    let mut stream = std::net::TcpStream::connect(daemon.address()).unwrap();
    stream.write_all(b"HEAD /api/v1/vms HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n").unwrap();
    let answer = std::io::read_to_string(stream).unwrap().to_lowercase();
    assert!(answer.contains(&format!("content-length: {length}\r\n")), "{answer}");
    assert!(answer.contains("content-encoding: gzip") && answer.ends_with("\r\n\r\n"), "{answer}");
}
