//! The groups of series that `/metrics` shows.

use std::collections::BTreeSet;
use std::process::Command;

use vm_metrics_testkit::daemon::{Daemon, GROUPS};

use crate::fixture::{BINARY, Fixture};

/// The names of the metrics with this list of groups.
fn names(groups: &str) -> BTreeSet<String> {
    let fixture = Fixture::new("mixed");
    let mut command = Command::new(BINARY);
    command.args(["serve", "--no-ebpf", "--listen", "127.0.0.1:0", "--config"]).arg(&fixture.config);
    command.env(GROUPS[0], groups);
    let daemon = Daemon::start_command(command).unwrap();
    daemon.wait_until_ready().unwrap();
    daemon.metrics().unwrap().families().into_iter().map(str::to_owned).collect()
}

#[test]
fn a_group_adds_its_metrics() {
    let (base, with_process, all) = (names("[]"), names("[\"process\"]"), names("[\"all\"]"));
    assert!(base.contains("vm_cpu_seconds_total") && base.contains("vm_exporter_ticks_total"), "{base:?}");
    assert!(!base.contains("vm_threads"), "{base:?}");
    let added: Vec<&String> = with_process.difference(&base).collect();
    assert!(with_process.is_superset(&base) && with_process.contains("vm_threads"), "{added:?}");
    assert!(added.iter().all(|name| !name.contains("network")), "{added:?}");
    assert!(all.is_superset(&with_process) && all.contains("vm_network_rx_errors_total"), "{all:?}");
}
