//! The HTTP server: formats, health, and how it leaves.

use prometheus::proto::MetricFamily;
use protobuf::Message;
use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::Fixture;

const PROTOBUF: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

#[test]
fn both_formats_say_the_same() {
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
fn scrapes_of_one_snapshot_differ_in_its_age_only() {
    let daemon = Fixture::with("mixed", "interval = \"1h\"", "").serve();
    let without_age = || -> Vec<String> {
        let text = daemon.scrape().unwrap();
        text.lines()
            .filter(|line| !line.starts_with("vm_metrics_snapshot_age_seconds "))
            .map(str::to_owned)
            .collect()
    };
    let age = || daemon.metrics().unwrap().value("vm_metrics_snapshot_age_seconds", &[]).unwrap();
    let (first, young) = (without_age(), age());
    assert_eq!(first, without_age());
    assert!(age() > young);
}

#[test]
fn health_and_unknown_paths() {
    let daemon = Fixture::new("empty").serve();
    for (path, status) in [("/", 200), ("/-/healthy", 200), ("/-/ready", 200), ("/nothing", 404)] {
        assert_eq!(daemon.get(path, None).unwrap().status, status, "{path}");
    }
}

#[test]
fn both_signals_end_it_with_zero() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Fixture::new("mixed").serve();
        kill_process(Pid::from_raw(daemon.pid().cast_signed()).unwrap(), signal).unwrap();
        // A second SIGTERM changes nothing.
        assert_eq!(daemon.terminate().unwrap().code(), Some(0), "{signal:?}: {}", daemon.log());
    }
}

#[test]
fn an_open_connection_does_not_keep_it_alive() {
    let mut daemon = Fixture::new("empty").serve();
    let _silent = std::net::TcpStream::connect(daemon.address()).unwrap();
    assert_eq!(daemon.terminate().unwrap().code(), Some(0));
}
