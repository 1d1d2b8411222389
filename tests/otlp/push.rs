//! The final push, reports of rejected points, and groups of series.

use vm_metrics_testkit::daemon::GROUPS;
use vm_metrics_testkit::otlp::OtlpSink;
use vm_metrics_testkit::wait::SOON;

use crate::setup::{Setup, metrics, often};

#[test]
fn the_final_numbers_are_pushed_at_shutdown() {
    let sink = OtlpSink::start(&[]).unwrap();
    let keys = format!("enabled = true\nendpoint = \"http://{}\"\ninterval = \"1h\"", sink.http());
    let mut daemon = Setup { otlp: Some(keys), ..Setup::default() }.serve();
    assert_eq!(sink.requests().len(), 0);
    assert_eq!(daemon.daemon.terminate().unwrap().code(), Some(0));
    assert_eq!(sink.requests().len(), 1, "{}", daemon.daemon.log());
}

#[test]
fn rejected_points_are_reported() {
    let sink = OtlpSink::start(&["--reject", "7"]).unwrap();
    for (protocol, address) in [("grpc", sink.grpc()), ("http/protobuf", sink.http())] {
        let more = format!("protocol = \"{protocol}\"");
        let daemon = Setup { otlp: often(&format!("http://{address}"), &more), ..Setup::default() }.serve();
        daemon.wait_for_exports("success", 1.0);
        let log = daemon.daemon.log();
        assert!(log.contains("rejected_data_points=7"), "{protocol}: {log}");
    }
}

#[test]
fn the_push_has_groups_of_its_own() {
    let sink = OtlpSink::start(&[]).unwrap();
    let variables = &[(GROUPS[0], "[\"all\"]"), (GROUPS[1], "[]")];
    let otlp = often(&format!("http://{}", sink.http()), "");
    let daemon = Setup { otlp, variables, ..Setup::default() }.serve();
    let request = sink.wait_for_request(SOON).unwrap();
    let pushed: Vec<&str> = metrics(&request).iter().map(|metric| metric["name"].as_str().unwrap()).collect();
    assert!(pushed.contains(&"vm_running") && !pushed.contains(&"vm_threads"), "{pushed:?}");
    assert!(daemon.daemon.metrics().unwrap().families().contains(&"vm_threads"));
}
