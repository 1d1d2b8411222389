//! A real Prometheus scrapes the tests' text, and promtool finds errors.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::prometheus::Prometheus;

const METRICS: &str =
    "# HELP answer_total The answer.\n# TYPE answer_total counter\nanswer_total{to=\"all\"} 42\n";

#[test]
fn a_server_scrapes_and_answers_queries() {
    let prometheus = Prometheus::prepare().unwrap();
    let _netns = NetNs::enter().unwrap();
    let target = serve(METRICS);
    let server = prometheus.start(&[target]).unwrap();
    let found = server.wait_for("answer_total{to=\"all\"} == 42").unwrap();
    assert_eq!(found[0]["metric"]["instance"], target.to_string());
    assert_eq!(server.query("up").unwrap()[0]["value"][1], "1");
    server.query("up{").unwrap_err();
}

#[test]
fn promtool_tells_good_from_bad() {
    let prometheus = Prometheus::prepare().unwrap();
    prometheus.check_metrics(METRICS).unwrap();
    let error = prometheus.check_metrics("answer_total{ 42\n").unwrap_err();
    assert!(error.to_string().contains("promtool"), "{error}");
    prometheus.check_metrics("# HELP answer No suffix.\n# TYPE answer counter\nanswer 42\n").unwrap_err();
}

/// Serves this text as long as the test runs.
fn serve(text: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("ask for the port");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
            // A client that disconnects early does not need the response.
            let _ = stream.read(&mut [0; 4096]).and_then(|_| stream.write_all((head + text).as_bytes()));
        }
    });
    address
}
