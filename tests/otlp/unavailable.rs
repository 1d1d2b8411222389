//! An absent, hanging or returning collector affects only the push.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use vm_metrics_testkit::otlp::OtlpSink;
use vm_metrics_testkit::wait::{SOON, scaled, wait_until};

use crate::setup::{Setup, often};

/// Returns a port without a listener.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn an_unreachable_collector_is_counted_and_logged_once() {
    for protocol in ["grpc", "http/protobuf"] {
        let more = format!("protocol = \"{protocol}\"\ntimeout = \"300ms\"");
        let otlp = often(&format!("http://localhost:{}", free_port()), &more);
        let mut daemon = Setup { otlp, ..Setup::default() }.serve();
        daemon.wait_for_exports("failure", 3.0);
        let metrics = daemon.daemon.metrics().unwrap();
        assert_eq!(metrics.samples("vm_cpu_seconds_total").count(), 3, "the scrape is as ever");
        assert!(
            metrics.value("vm_exporter_otlp_last_success_timestamp_seconds", &[]).is_none(),
            "there was none"
        );
        assert_eq!(daemon.daemon.terminate().unwrap().code(), Some(0));
        let log = daemon.daemon.log();
        assert_eq!(log.matches("cannot push to http://localhost:").count(), 1, "{log}");
        assert!(log.to_lowercase().contains("connection refused"), "the reason is missing: {log}");
        assert_eq!(log.matches("otlp: the last push did not arrive").count(), 1, "{log}");
    }
}

#[test]
fn a_hanging_collector_delays_no_shutdown() {
    let sink = OtlpSink::start(&["--hang"]).unwrap();
    for (protocol, address) in [("grpc", sink.grpc()), ("http/protobuf", sink.http())] {
        let more = format!("protocol = \"{protocol}\"\ntimeout = \"300ms\"");
        let mut daemon =
            Setup { otlp: often(&format!("http://{address}"), &more), ..Setup::default() }.serve();
        daemon.wait_for_exports("failure", 2.0);
        assert_eq!(daemon.daemon.terminate().unwrap().code(), Some(0));

        // The shutdown must not wait for such a long timeout.
        let more = format!("protocol = \"{protocol}\"\ntimeout = \"1h\"");
        let before = sink.requests().len();
        let mut daemon =
            Setup { otlp: often(&format!("http://{address}"), &more), ..Setup::default() }.serve();
        let asked = || Ok((sink.requests().len() > before).then_some(()));
        wait_until(SOON, "a push", asked).unwrap();
        assert_eq!(daemon.daemon.metrics().unwrap().samples("vm_cpu_seconds_total").count(), 3);
        let leaving = Instant::now();
        assert_eq!(daemon.daemon.terminate().unwrap().code(), Some(0));
        assert!(leaving.elapsed() < scaled(Duration::from_secs(15)), "{:?}", leaving.elapsed());
    }
}

#[test]
fn a_hanging_collector_delays_no_tick_or_scrape() {
    let sink = OtlpSink::start(&["--hang"]).unwrap();
    for (protocol, address) in [("grpc", sink.grpc()), ("http/protobuf", sink.http())] {
        let otlp =
            often(&format!("http://{address}"), &format!("protocol = \"{protocol}\"\ntimeout = \"1h\""));
        let before = sink.requests().len();
        let daemon = Setup { otlp, interval: Some("50ms"), ..Setup::default() }.serve();
        let asked = || Ok((sink.requests().len() > before).then_some(()));
        wait_until(SOON, "a push", asked).unwrap();
        let ticks = || daemon.daemon.metrics().unwrap().value("vm_exporter_ticks_total", &[]).unwrap();
        let begin = ticks();
        wait_until(SOON, "ten more ticks", || Ok((ticks() >= begin + 10.0).then_some(()))).unwrap();
        assert_eq!((daemon.exports("success"), daemon.exports("failure")), (0.0, 0.0), "it still waits");
        let age = daemon.daemon.metrics().unwrap().age("vm_exporter_snapshot_timestamp_seconds");
        assert!(age < Some(5.0), "{age:?}");
    }
}

#[test]
fn a_collector_that_comes_back_is_found() {
    let port = free_port();
    let otlp = often(&format!("http://localhost:{port}"), "timeout = \"1s\"");
    let daemon = Setup { otlp, ..Setup::default() }.serve();
    daemon.wait_for_exports("failure", 1.0);
    let sink = OtlpSink::start(&["--port", &port.to_string()]).unwrap();
    daemon.wait_for_exports("success", 2.0);
    let age = daemon.daemon.metrics().unwrap().age("vm_exporter_otlp_last_success_timestamp_seconds");
    assert!(age.unwrap() < 20.0, "{age:?}");
    assert_eq!(daemon.daemon.log().matches("takes what is pushed again").count(), 1);
    drop(sink);
    let failed = daemon.exports("failure");
    daemon.wait_for_exports("failure", failed + 1.0);
}
