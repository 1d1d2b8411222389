//! Splits large pushes, because gRPC servers refuse messages of more than 4 MiB.

use std::collections::BTreeSet;

use vm_metrics_testkit::otlp::OtlpSink;

use crate::setup::{Setup, attributes, metrics};

/// Long names make a large push of few VMs.
fn many_vms(count: usize) -> String {
    let table = |id| {
        let name = format!("{id}-").repeat(1500);
        format!("[[sources.static_list.vms]]\nid = \"vm-{id}\"\nname = {name:?}\nvcpus = 2\n")
    };
    (0..count).map(table).collect()
}

#[test]
fn many_vms_are_several_requests() {
    let sink = OtlpSink::start(&[]).unwrap();
    let tables = many_vms(500);
    for (protocol, address) in [("grpc", sink.grpc()), ("http/protobuf", sink.http())] {
        let before = sink.requests().len();
        let keys = format!(
            "enabled = true\nendpoint = \"http://{address}\"\nprotocol = \"{protocol}\"\ninterval = \"1h\""
        );
        let mut daemon = Setup { otlp: Some(keys), tables: &tables, ..Setup::default() }.serve();
        assert_eq!(daemon.daemon.terminate().unwrap().code(), Some(0));
        let log = daemon.daemon.log();
        assert!(!log.contains("the last push did not arrive"), "{log}");

        let requests = &sink.requests()[before..];
        assert!(requests.len() > 1, "{protocol}: {}", requests.len());
        let ups = requests.iter().flat_map(metrics).filter(|metric| metric["name"] == "vm_running");
        let points = ups.flat_map(|metric| metric["gauge"]["dataPoints"].as_array().unwrap());
        let ids: Vec<_> = points.map(|point| attributes(point)[0].1.clone()).collect();
        assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "{protocol}: none is there twice");
        assert_eq!(ids.iter().filter(|id| id.starts_with("vm-")).count(), 500, "{protocol}");
    }
}
