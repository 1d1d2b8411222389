//! The unit's capabilities are enough for an unprivileged daemon, and minimal.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, Rlimit, setrlimit};
use vm_metrics_testkit::child::copy_program;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::service;
use vm_metrics_testkit::vm_process::{self, StandIn, StandInSpec, Traffic};

const TAP: &str = "vmrights0";

/// The VM process of the other test, see `vm_process`.
#[test]
fn stand_in_vm() {
    vm_process::run_if_asked().unwrap();
}

#[test]
fn the_units_capabilities_are_exactly_enough() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(service::settings("LimitMEMLOCK").collect::<Vec<_>>(), ["infinity"]);
    // Does the same as that line. Only kernels before 5.11 check the limit, and not every root may raise it.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
    // Every user may execute it here.
    let daemon = dir.path().join("vm-metrics");
    copy_program(Path::new(env!("CARGO_BIN_EXE_vm-metrics")), &daemon).unwrap();
    // Its name makes it a VM. Its arguments name no TAP, so the daemon must read its open files.
    let vmm = dir.path().join("qemu-system-x86_64");
    copy_program(&env::current_exe().unwrap(), &vmm).unwrap();

    let _namespace = NetNs::enter().unwrap();
    let mut command = Command::new(vmm);
    command.args(["--exact", "capabilities::stand_in_vm", "--nocapture"]);
    let traffic = Traffic { packets_per_second: 10, frame_bytes: 100 };
    let spec = StandInSpec {
        tap: TAP.to_owned(),
        sends: traffic,
        receives: traffic,
        memory_bytes: 4096,
        threads: Vec::new(),
    };
    let _vm = StandIn::start(&spec, command).unwrap();

    let capabilities = service::capabilities();
    assert!(found_and_counted_by_ebpf(&daemon, &capabilities), "{capabilities:?} are not enough");
    for without in &capabilities {
        let fewer: Vec<_> = capabilities.iter().filter(|one| *one != without).cloned().collect();
        assert!(!found_and_counted_by_ebpf(&daemon, &fewer), "{without} is not needed");
    }
}

fn found_and_counted_by_ebpf(binary: &Path, capabilities: &[String]) -> bool {
    let mut command = service::command(binary, capabilities);
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    let daemon = Daemon::start_command(command).unwrap();
    daemon.wait_until_ready().unwrap();
    let by_ebpf = [("device", TAP), ("source", "ebpf")];
    daemon.metrics().unwrap().value("vm_network_source_info", &by_ebpf) == Some(1.0)
}
