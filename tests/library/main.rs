//! Builds a program outside this workspace that depends on the library.

#![cfg(feature = "ebpf")]
#![expect(clippy::unwrap_used, reason = "a test panics with the place where it happened")]

mod program;

use std::process::Command;

use program::Program;

/// Crates that only the daemon needs.
const OF_THE_DAEMON: [&str; 12] = [
    "anyhow",
    "axum",
    "clap",
    "flate2",
    "hyper-rustls",
    "opentelemetry-otlp",
    "prometheus",
    "rustls",
    "tonic",
    "tracing-subscriber",
    "utoipa",
    "vm-metrics-testkit",
];

/// Uses the default features, which include the eBPF programs.
#[test]
fn a_program_outside_the_workspace_builds_and_runs() {
    let program = Program::new("");
    let output = program.cargo("run").output().unwrap();
    let output_text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output_text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        output_text.contains("tap_ebpf: ") && !output_text.contains("built without eBPF"),
        "{output_text}"
    );
}

#[test]
fn the_library_has_no_crates_of_the_daemon() {
    for (features, has_telemetry) in [("", true), (", default-features = false", false)] {
        let output = Program::new(features).cargo("tree").args(["-e", "normal", "--prefix", "none"]).output();
        let tree = String::from_utf8(output.unwrap().stdout).unwrap();
        let crates: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(crates.contains(&"vm-metrics") && crates.contains(&"tokio"), "{tree}");
        assert_eq!(crates.contains(&"opentelemetry_sdk"), has_telemetry, "{tree}");
        for unwanted in OF_THE_DAEMON {
            assert!(!crates.contains(&unwanted), "{unwanted} {features}");
        }
    }
}

/// The message must also be right outside this workspace.
#[test]
fn a_missing_tool_is_named_with_its_remedy() {
    let program = Program::new(", default-features = false, features = [\"ebpf\"]");
    let output = program.cargo_without_ebpf_tools("build").output().unwrap();
    let output_text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{output_text}");
    for expected in [
        "bpf-linker is not in PATH: install it: cargo install bpf-linker --version ",
        "rust-src is not in the toolchain: add it: rustup component add rust-src",
        "or build without eBPF: default-features = false",
    ] {
        assert!(output_text.contains(expected), "{expected} is not in {output_text}");
    }
    assert!(!output_text.contains("xtask"), "{output_text}");
}

/// cargo names the feature of the binary before it builds anything.
#[test]
fn a_daemon_without_its_feature_is_refused() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--package", "vm-metrics", "--bin", "vm-metrics"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = cargo.output().unwrap();
    let output_text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && output_text.contains("requires the features: `daemon`"),
        "{output_text}"
    );
}
