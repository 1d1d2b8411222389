//! `cargo xtask test`: everything that this machine can test, and at the end what was skipped and why.
//!
//! A suite that cannot run here is skipped as a whole. A single test that finds that it cannot run appends a line
//! `name<TAB>reason` to the file named by the environment variable `VM_METRICS_SKIP_LOG`, and returns. With `CI=true`
//! a skip is a failure.

mod libtest;
mod suites;

use std::env;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use vm_metrics_testkit::packages::ensure_debian;

use self::libtest::{Outcome, Skip};
use crate::{tools, workspace::Workspace};

#[derive(Debug, Args)]
pub struct Options {
    /// Skip what takes minutes: the real guests.
    #[arg(long)]
    quick: bool,
}

/// What the suites run: a server to be scraped by, and what a guest is made of and runs in.
const DEBIAN_PACKAGES: &[&str] = &["busybox-static", "cpio", "kmod", "prometheus", "qemu-system-x86"];

pub fn test(workspace: &Workspace, options: &Options) -> Result<()> {
    tools::ensure_bpf(workspace)?;
    let is_root = rustix::process::geteuid().is_root();
    if is_root && let Err(error) = ensure_debian(DEBIAN_PACKAGES) {
        // A test that misses one of them says so itself.
        eprintln!("xtask: {error:#}");
    }
    let start = Instant::now();
    let mut outcomes = Vec::new();
    for suite in suites::suites(workspace) {
        outcomes.push(match suite.reason_to_skip(is_root, options.quick) {
            Some(reason) => Outcome::skipped(&suite.name, reason),
            None => {
                eprintln!("xtask: suite {}", suite.name);
                libtest::run(workspace, &suite)?
            }
        });
    }
    let skips_are_failures = env::var_os("CI").is_some_and(|value| value == "true");
    report(&outcomes, skips_are_failures, start.elapsed())
}

/// The closing lines: each suite, what was skipped, and the sum in the words of `cargo test`.
fn report(outcomes: &[Outcome], skips_are_failures: bool, took: Duration) -> Result<()> {
    println!();
    for outcome in outcomes {
        println!("{outcome}");
    }
    let skips: Vec<&Skip> = outcomes.iter().flat_map(|outcome| &outcome.skips).collect();
    for Skip { name, reason } in &skips {
        println!("skipped: {name}: {reason}");
    }
    match (skips.is_empty(), skips_are_failures) {
        (true, _) => println!("nothing skipped"),
        (false, true) => println!("CI=true: what was skipped counts as failed"),
        (false, false) => {}
    }
    let suite_failed = outcomes.iter().any(|outcome| outcome.failure.is_some());
    let failed = suite_failed || (skips_are_failures && !skips.is_empty());
    println!(
        "test result: {}. {} passed; {} failed; {} ignored; 0 measured; 0 filtered out; finished in {:.2}s",
        if failed { "FAILED" } else { "ok" },
        outcomes.iter().map(|outcome| outcome.passed).sum::<usize>(),
        outcomes.iter().map(|outcome| outcome.failed).sum::<usize>(),
        skips.len(),
        took.as_secs_f64()
    );
    ensure!(!failed, "the tests failed");
    Ok(())
}
