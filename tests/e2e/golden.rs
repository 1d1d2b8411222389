//! Compares the output for a fixture host with a file; `UPDATE_GOLDEN=1` rewrites it.

use std::fs;

use serde_json::Value;

use crate::fixture::{Fixture, stdout, tests_dir};

#[test]
fn snapshot_table() {
    let output = Fixture::new("mixed").run("snapshot", &[]);
    assert!(output.status.success());
    compare("mixed.snapshot.txt", &stdout(&output));
}

#[test]
fn snapshot_json() {
    let output = Fixture::new("mixed").run("snapshot", &["--json"]);
    assert!(output.status.success());
    let mut document: Value = serde_json::from_str(&stdout(&output)).unwrap();
    for moment in ["taken_at", "tick"] {
        assert!(!document[moment].take().is_null(), "{moment}");
    }
    compare("mixed.snapshot.json", &(serde_json::to_string_pretty(&document).unwrap() + "\n"));
}

#[test]
fn metrics_of_vms() {
    let text = Fixture::new("mixed").serve().scrape().unwrap();
    compare("mixed.metrics.txt", &of_vms(&text, "vm"));
}

#[test]
fn metrics_with_the_prefix_of_existing_dashboards() {
    let text = Fixture::with("mixed", "metric_prefix = \"hypeman_vm\"", "").serve().scrape().unwrap();
    for of_go in [
        "instances_observed{exporter=\"prometheus\"} 3",
        "label_budget_exceeded_total{exporter=\"prometheus\"} 0",
    ] {
        assert!(text.contains(&format!("\nhypeman_vm_metrics_{of_go}\n")), "{text}");
    }
    let as_vm = of_vms(&text, "hypeman_vm").replace("hypeman_vm_", "vm_");
    assert_eq!(as_vm, of_vms(&Fixture::new("mixed").serve().scrape().unwrap(), "vm"));
}

#[test]
fn a_host_without_vms_is_no_error() {
    let output = Fixture::new("empty").run("snapshot", &[]);
    assert!(output.status.success());
    assert!(stdout(&output).starts_with("no VMs found"), "{}", stdout(&output));
    let output = Fixture::new("empty").run("snapshot", &["--json"]);
    let document: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(document["vms"], Value::Array(Vec::new()));
}

fn of_vms(text: &str, prefix: &str) -> String {
    let name = |line: &str| line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ").to_owned();
    let is_of_vms = |line: &&str| {
        let name = name(line);
        let of_daemon = name.starts_with("vm_exporter_") || name.starts_with(&format!("{prefix}_metrics_"));
        name.starts_with(&format!("{prefix}_")) && !of_daemon
    };
    text.lines().filter(is_of_vms).map(|line| format!("{line}\n")).collect()
}

fn compare(name: &str, actual: &str) {
    let path = tests_dir().join("golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(actual == expected, "{name} differs: `UPDATE_GOLDEN=1` writes it anew. Now it is:\n{actual}");
}
