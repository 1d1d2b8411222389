//! Whole numbers reach every format exactly, also those that a double cannot hold.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use vm_metrics_testkit::otlp::OtlpSink;
use vm_metrics_testkit::wait::SOON;

use crate::setup::{Setup, attributes, metrics, often};

/// The first whole number that a double lacks, and one that lies near the end.
const READ: u64 = (1 << 53) + 1;
const WRITTEN: u64 = u64::MAX - 6;

/// The process `db` of the fixture has read and written so much.
#[test]
fn large_counts_are_exact_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let (host, mixed) =
        (dir.path().join("host"), Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/mixed"));
    assert!(Command::new("cp").arg("-r").arg(mixed).arg(&host).status().unwrap().success());
    let io = format!("read_bytes: {READ}\nwrite_bytes: {WRITTEN}\ncancelled_write_bytes: 0\n");
    fs::write(host.join("proc/4400/io"), io).unwrap();
    let sink = OtlpSink::start(&[]).unwrap();
    let otlp = often(&format!("http://{}", sink.http()), "");
    let pushing = Setup { otlp, host: Some(&host), ..Setup::default() }.serve();

    let text = pushing.daemon.scrape().unwrap();
    let of_text = |name: &str| -> u64 {
        let start = format!("{name}{{instance_id=\"db\"");
        let line = text.lines().find(|line| line.starts_with(&start)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(of_text("vm_disk_read_bytes_total"), READ);
    assert_eq!(of_text("vm_disk_write_bytes_total"), WRITTEN);

    let document = pushing.daemon.get("/api/v1/vms/db", None).unwrap();
    let vm: Value = serde_json::from_slice(&document.body).unwrap();
    assert_eq!(vm["disk_read_bytes"], READ);
    assert_eq!(vm["disk_write_bytes"], WRITTEN);

    let request = sink.wait_for_request(SOON).unwrap();
    let of_push = |name: &str| -> u64 {
        let metric = metrics(&request).iter().find(|metric| metric["name"] == name).unwrap();
        let points = metric["sum"]["dataPoints"].as_array().unwrap();
        let is_db = |point: &&Value| attributes(point).iter().any(|(_, value)| value == "db");
        points.iter().find(is_db).unwrap()["asInt"].as_str().unwrap().parse().unwrap()
    };
    assert_eq!(of_push("vm_disk_read_bytes_total"), READ);
    // The largest number that the format has.
    assert_eq!(of_push("vm_disk_write_bytes_total"), i64::MAX as u64);
}
