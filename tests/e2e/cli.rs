//! Commands, flags and exit codes: 0, 64 for usage errors, 1 for failures.

use std::process::Command;

use crate::fixture::{BINARY, Fixture, run, stderr, stdout};

#[test]
fn help_and_version_exit_with_zero() {
    for args in [["--help"], ["--version"]] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(stdout(&output).contains("vm-metrics"), "{args:?}");
    }
}

#[test]
fn bad_flags_are_named() {
    for (args, named) in [
        (&["serve", "--intervall", "1s"][..], "--intervall"),
        (&["serve", "--interval", "fast"], "fast"),
        (&["serve", "--interval", "0s"], "between 10ms and 1h"),
        (&["serve", "--listen", "nowhere"], "'nowhere' for '--listen <ADDR>': the port is missing, such as"),
        (&["serve", "--listen", ":1,10464"], "'10464' for '--listen <ADDR>': a port needs an address"),
        (&["destroy"], "destroy"),
        (&[], "Usage"),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}");
        assert!(stderr(&output).contains(named), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_bad_configuration_names_its_line() {
    let fixture = Fixture::with("empty", "", "[readers.tap_ebpf]\nmax_nicks = 3");
    for command in ["serve", "snapshot", "doctor"] {
        let output = fixture.run(command, &[]);
        assert_eq!(output.status.code(), Some(64), "{command}");
        let error = stderr(&output);
        assert!(error.contains("config.toml:6") && error.contains("max_nicks"), "{command}: {error}");
    }
    let output = run(&["config", "check", fixture.config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(64));
    let output = run(&["config", "check", "/nowhere/config.toml"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("/nowhere/config.toml"));
}

/// More people read the log of a daemon than its configuration.
#[test]
fn an_error_message_repeats_no_secret() {
    let headers = "[exporters.otlp]\nheaders = { authorization = \"Bearer SECRET\", tenant = 1 }";
    let fixture = Fixture::with("empty", "", headers);
    let config = fixture.config.to_str().unwrap();
    for args in
        [&["serve", "--config", config][..], &["doctor", "--config", config], &["config", "check", config]]
    {
        let output = run(args);
        let message = stdout(&output) + &stderr(&output);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {message}");
        assert!(message.contains("config.toml:6") && message.contains("headers"), "{args:?}: {message}");
        assert!(!message.contains("SECRET"), "{args:?}: {message}");
    }
}

#[test]
fn a_push_without_pause_is_refused() {
    let fixture = Fixture::with("empty", "", "[exporters.otlp]\nenabled = true\ninterval = \"1ns\"");
    let output = fixture.run("serve", &[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("interval: must be between 1s and 1day"), "{}", stderr(&output));
}

#[test]
fn a_bad_log_filter_is_named() {
    let mut command = Command::new(BINARY);
    let output = command.args(["config", "print-default"]).env("VM_METRICS_LOG", "vm=loud").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    let wording = "variable VM_METRICS_LOG: log.level: must be one of off, error, warn, info, debug, trace";
    assert!(stderr(&output).contains(wording), "{}", stderr(&output));
}

#[test]
fn the_printed_default_configuration_is_valid() {
    let printed = run(&["config", "print-default"]);
    assert!(printed.status.success());
    let fixture = Fixture::new("empty");
    let file = fixture.dir.path().join("default.toml");
    std::fs::write(&file, &printed.stdout).unwrap();
    let output = run(&["config", "check", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_snapshot_without_readable_sources_fails() {
    for args in [&[][..], &["--json"]] {
        let fixture = Fixture::copy_of("mixed");
        std::fs::rename(fixture.proc(), fixture.dir.path().join("elsewhere")).unwrap();
        let output = fixture.run("snapshot", args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert_eq!(stdout(&output), "", "{args:?}");
        let error = stderr(&output);
        assert!(error.contains("source proc_scan") && error.contains("host/proc"), "{args:?}: {error}");
    }
}

/// The snapshot has the VMs of the other sources, and the exit code reports the failure.
#[test]
fn a_failed_source_leaves_a_partial_snapshot() {
    let fixture = Fixture::copy_of("mixed");
    std::fs::rename(fixture.proc(), fixture.dir.path().join("elsewhere")).unwrap();
    let listed = "[[sources.static_list.vms]]\nid = \"a\"\n";
    let config = std::fs::read_to_string(&fixture.config).unwrap() + listed;
    std::fs::write(&fixture.config, config).unwrap();
    let output = fixture.run("snapshot", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("\na "), "{}", stdout(&output));
    assert!(stderr(&output).contains("source proc_scan"), "{}", stderr(&output));
}

#[test]
fn the_doctor_names_disabled_components_with_reasons() {
    let output = Fixture::new("mixed").run("doctor", &[]);
    assert!(output.status.success());
    let report = stdout(&output);
    assert!(report.contains("ch-tap0: no such device in this network namespace"), "{report}");
    for part in ["source proc_scan", "reader proc_stat", "reader tap_sysfs", "reader tap_ebpf"] {
        assert!(report.contains(part), "{report}");
    }
}

#[test]
#[cfg(not(feature = "ebpf"))]
fn a_binary_without_ebpf_says_so() {
    let report = stdout(&Fixture::new("mixed").run("doctor", &[]));
    assert!(report.contains("built without eBPF"), "{report}");
}
