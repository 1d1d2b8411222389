//! The HTTP server: formats, health and shutdown.

use std::io::{Read, Write};
use std::net::TcpStream;

use prometheus::proto::MetricFamily;
use protobuf::Message;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::wait::{SOON, scaled, wait_until};

use crate::fixture::Fixture;

const PROTOBUF: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

#[test]
fn both_formats_have_equal_values() {
    let daemon = Fixture::new("mixed").serve();
    let text = daemon.get("/metrics", None).unwrap();
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4"));
    let protobuf = daemon.get("/metrics", Some(PROTOBUF)).unwrap();
    assert!(protobuf.header("content-type").unwrap().starts_with("application/vnd.google.protobuf"));

    let mut input = protobuf::CodedInputStream::from_bytes(&protobuf.body);
    let mut families: Vec<MetricFamily> = Vec::new();
    while !input.eof().unwrap() {
        families.push(input.read_message().unwrap());
    }
    let cpu = families.iter().find(|family| family.name() == "vm_cpu_seconds_total").unwrap();
    let seconds: Vec<f64> = cpu.metric.iter().map(|metric| metric.counter.value()).collect();
    assert_eq!(seconds, [130.23, 0.55, 3.0]);
    assert!(families.iter().all(MetricFamily::is_initialized));

    let names = |text: &str| -> Vec<String> {
        text.lines()
            .filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned()))
            .collect()
    };
    let in_protobuf: Vec<String> = families.iter().map(|family| family.name().to_owned()).collect();
    assert_eq!(in_protobuf, names(text.text().unwrap()));
}

#[test]
fn scrapes_of_one_snapshot_are_the_same() {
    let daemon = Fixture::with("mixed", "interval = \"1h\"", "").serve();
    assert_eq!(daemon.scrape().unwrap(), daemon.scrape().unwrap());
}

#[test]
fn the_snapshot_has_its_own_time() {
    let daemon = Fixture::with("mixed", "interval = \"50ms\"", "").serve();
    let at = |metrics: &Metrics| metrics.value("vm_exporter_snapshot_timestamp_seconds", &[]).unwrap();
    let first = daemon.metrics().unwrap();
    let age = first.age("vm_exporter_snapshot_timestamp_seconds").unwrap();
    assert!((0.0..3600.0).contains(&age), "{age} seconds");
    let is_later = |metrics: &Metrics| (at(metrics) > at(&first)).then_some(());
    daemon.wait_for(SOON, "a later snapshot", is_later).unwrap();
}

#[test]
fn health_and_unknown_paths() {
    let daemon = Fixture::new("empty").serve();
    for (path, status) in [("/", 200), ("/-/healthy", 200), ("/-/ready", 200), ("/nothing", 404)] {
        assert_eq!(daemon.get(path, None).unwrap().status, status, "{path}");
    }
}

#[test]
fn both_signals_stop_it_with_zero() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Fixture::new("mixed").serve();
        kill_process(Pid::from_raw(daemon.pid().cast_signed()).unwrap(), signal).unwrap();
        // A second SIGTERM changes nothing.
        assert_eq!(daemon.terminate().unwrap().code(), Some(0), "{signal:?}: {}", daemon.log());
    }
}

#[test]
fn a_hangup_does_not_stop_it() {
    let mut daemon = Fixture::new("mixed").serve();
    kill_process(Pid::from_raw(daemon.pid().cast_signed()).unwrap(), Signal::HUP).unwrap();
    let message =
        || Ok(daemon.log().contains("SIGHUP: the configuration is read at the start only").then_some(()));
    wait_until(SOON, "a line about SIGHUP", message).unwrap();
    assert_eq!(daemon.get("/-/healthy", None).unwrap().status, 200);
    assert_eq!(daemon.terminate().unwrap().code(), Some(0));
}

#[test]
fn an_open_connection_does_not_keep_it_alive() {
    let mut daemon = Fixture::new("empty").serve();
    let _silent = TcpStream::connect(daemon.address()).unwrap();
    assert_eq!(daemon.terminate().unwrap().code(), Some(0));
}

#[test]
fn silent_connections_leave_room_for_a_scrape() {
    let daemon = Fixture::new("mixed").serve_with_files(160);
    let connect = |_| TcpStream::connect(daemon.address()).unwrap();
    let silent: Vec<TcpStream> = (0..200).map(connect).collect();
    daemon.metrics().unwrap();
    drop(silent);
    assert!(!daemon.log().contains("cannot accept"), "{}", daemon.log());
}

#[test]
fn a_silent_or_incomplete_connection_is_closed() {
    let daemon = Fixture::new("empty").serve();
    for message in ["", "GET /metrics HTTP/1.1\r\nHost: x\r\n"] {
        let mut connection = TcpStream::connect(daemon.address()).unwrap();
        connection.write_all(message.as_bytes()).unwrap();
        connection.set_read_timeout(Some(scaled(SOON))).unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{message:?}: {answer}");
    }
}

/// Prometheus keeps its connection between scrapes.
#[test]
fn a_connection_serves_more_than_one_request() {
    let daemon = Fixture::new("empty").serve();
    let mut connection = TcpStream::connect(daemon.address()).unwrap();
    connection.set_read_timeout(Some(scaled(SOON))).unwrap();
    for _ in 0..3 {
        connection.write_all(b"GET /-/ready HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ready\n") {
            let mut chunk = [0; 512];
            let length = connection.read(&mut chunk).unwrap();
            assert!(length > 0, "closed");
            answer.extend_from_slice(&chunk[..length]);
        }
    }
}

fn status_for_host(daemon: &Daemon, path: &str, host: &str) -> u16 {
    let mut connection = TcpStream::connect(daemon.address()).unwrap();
    connection.set_read_timeout(Some(scaled(SOON))).unwrap();
    write!(connection, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(!answer.to_lowercase().contains("access-control-"), "{answer}");
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// A web page must not read the metrics by a name that resolves to this host (DNS rebinding).
#[test]
fn requests_for_other_hosts_are_misdirected() {
    let daemon = Fixture::with("mixed", "", "[http]\nhosts = [\"metrics.example\"]").serve();
    for path in ["/metrics", "/api/v1/vms", "/api/v1/health", "/-/healthy", "/", "/nothing"] {
        assert_eq!(status_for_host(&daemon, path, "evil.example"), 421, "{path}");
        assert_eq!(status_for_host(&daemon, path, "evil.example:10464"), 421, "{path}");
    }
    for host in ["127.0.0.1", "[::1]:10464", "localhost:10464", "metrics.example", "METRICS.example.:80"] {
        assert_eq!(status_for_host(&daemon, "/metrics", host), 200, "{host}");
    }
}

/// Forty clients read their responses at once, and forty never read theirs.
#[test]
fn scrapes_at_once_are_all_answered() {
    let daemon = Fixture::new("mixed").serve();
    let scrape = || daemon.metrics().unwrap();
    std::thread::scope(|scope| (0..40).for_each(|_| drop(scope.spawn(scrape))));
    let unread: Vec<_> = (0..40)
        .map(|_| {
            let mut connection = TcpStream::connect(daemon.address()).unwrap();
            connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            connection
        })
        .collect();
    scrape();
    drop(unread);
}

#[test]
fn a_fifo_instead_of_a_file_blocks_nothing() {
    let fixture = Fixture::copy_of("mixed");
    let statm = fixture.proc().join("4242/statm");
    std::fs::remove_file(&statm).unwrap();
    mknodat(CWD, &statm, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut daemon = fixture.serve();
    let metrics = daemon.metrics().unwrap();
    assert!(metrics.value("vm_exporter_reader_errors_total", &[("reader", "proc_statm")]) >= Some(1.0));
    assert_eq!(daemon.terminate().unwrap().code(), Some(0));
}

#[test]
fn a_terminated_vm_is_no_failure() {
    let tables =
        "[sources.proc_scan]\nenabled = false\n[[sources.static_list.vms]]\nid = \"a\"\npid = 999999";
    let daemon = Fixture::with("empty", "", tables).serve();
    let metrics = daemon.metrics().unwrap();
    assert_eq!(metrics.value("vm_exporter_source_success", &[("source", "static_list")]), Some(1.0));
    assert_eq!(metrics.value("vm_exporter_reader_errors_total", &[("reader", "proc_stat")]), Some(0.0));
    let log = daemon.log();
    assert!(log.contains("INFO source static_list: process 999999 is not there"), "{log}");
}
