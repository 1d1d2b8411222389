//! `cargo xtask check`: every check that does not run the code.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::{
    command::{cargo, run},
    public_api, tidy, tools,
    workspace::Workspace,
};

type Step = fn(&Workspace) -> Result<()>;

/// Every step runs, even after a failure; quick ones come first.
const STEPS: &[(&str, Step)] = &[
    ("format", format),
    ("tidy", tidy::check),
    ("clippy", clippy),
    ("clippy of the daemon without eBPF", clippy_no_ebpf),
    ("clippy of the library", clippy_library),
    ("clippy of the library without features", clippy_no_features),
    ("clippy for the BPF target", clippy_bpf),
    ("documentation", documentation),
    ("public API", public_api::public_api),
    ("dependencies", dependencies),
];

pub fn check(workspace: &Workspace) -> Result<()> {
    tools::ensure_lints(workspace)?;
    tools::ensure_bpf(workspace)?;
    let start = Instant::now();
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        eprintln!("xtask: {name}");
        if let Err(error) = step(workspace) {
            eprintln!("xtask: {name}: {error:#}");
            failed.push(*name);
        }
    }
    if !failed.is_empty() {
        bail!("check failed: {}", failed.join(", "));
    }
    eprintln!("xtask: {} checks passed in {} s", STEPS.len(), start.elapsed().as_secs());
    Ok(())
}

fn format(workspace: &Workspace) -> Result<()> {
    run(cargo(workspace, "fmt").args(["--all", "--check"]))
}

/// Checks with all features, which include the tests'.
fn clippy(workspace: &Workspace) -> Result<()> {
    clippy_with(workspace, &["--all-targets", "--all-features"])
}

fn clippy_no_ebpf(workspace: &Workspace) -> Result<()> {
    let options =
        ["--package", "vm-metrics", "--no-default-features", "--features", "daemon", "--all-targets"];
    clippy_with(workspace, &options)
}

/// Checks the library as a dependency, without the features of the tests.
fn clippy_library(workspace: &Workspace) -> Result<()> {
    clippy_with(workspace, &["--package", "vm-metrics", "--lib"])
}

fn clippy_no_features(workspace: &Workspace) -> Result<()> {
    clippy_with(workspace, &["--package", "vm-metrics", "--no-default-features", "--lib"])
}

fn clippy_with(workspace: &Workspace, options: &[&str]) -> Result<()> {
    run(cargo(workspace, "clippy").args(options).args(["--", "-D", "warnings"]))
}

/// Builds like `vm-metrics/build.rs` and in its directory, so that `core` is ready.
fn clippy_bpf(workspace: &Workspace) -> Result<()> {
    run(cargo(workspace, "clippy")
        .env("RUSTC_BOOTSTRAP", "1")
        .args([
            "--release",
            "-Zbuild-std=core",
            "--package",
            "vm-metrics-ebpf",
            "--target",
            "bpfel-unknown-none",
        ])
        .arg("--target-dir")
        .arg(workspace.target.join("bpf"))
        .args(["--", "-D", "warnings"]))
}

/// Builds the documentation for users, and with private items for developers.
fn documentation(workspace: &Workspace) -> Result<()> {
    let private = ["--document-private-items", "--features", "vm-metrics/daemon"];
    for options in [&[][..], &private] {
        run(cargo(workspace, "doc").env("RUSTDOCFLAGS", "-D warnings").arg("--no-deps").args(options))?;
    }
    Ok(())
}

/// Advisories are not checked: their database is a git repository, which a build may not reach.
fn dependencies(workspace: &Workspace) -> Result<()> {
    let deny = tools::ensure_cargo_deny(workspace)?;
    run(Command::new(deny).current_dir(&workspace.root).args(["check", "bans", "licenses", "sources"]))
}
