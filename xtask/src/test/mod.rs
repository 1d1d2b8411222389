//! `cargo xtask test`: all tests on this machine's kernel, and the skips.
//!
//! A suite that cannot run here is skipped as a whole. A test that cannot run appends a line `name<TAB>reason` to the
//! file in the environment variable `TESTKIT_SKIP_LOG`, and returns. With `CI=true` a skip is a failure.

mod libtest;
mod suites;

use std::env;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use vm_metrics_testkit::packages::ensure_debian;

use self::libtest::{Outcome, Skip};
use self::suites::Suite;
use crate::{tools, workspace::Workspace};

#[derive(Debug, Args)]
pub struct Options {
    /// Skip tests that take minutes: the real guests, and a program outside the workspace.
    #[arg(long)]
    quick: bool,
}

pub fn test(workspace: &Workspace, options: &Options) -> Result<()> {
    let start = Instant::now();
    tools::ensure_bpf(workspace)?;
    let mut outcomes = vec![libtest::build(workspace)?];
    let is_root = rustix::process::geteuid().is_root();
    for suite in suites::suites(workspace) {
        outcomes.push(match ready(&suite, is_root, options.quick) {
            Ok(()) => {
                eprintln!("xtask: suite {}", suite.name);
                libtest::run(workspace, &suite)?
            }
            Err(reason) => Outcome::skipped(&suite.name, &reason),
        });
    }
    let skips_are_failures = env::var_os("CI").is_some_and(|value| value == "true");
    report(&outcomes, skips_are_failures, start.elapsed())
}

/// Installs the suite's packages; the error is the reason why it cannot run.
fn ready(suite: &Suite, is_root: bool, quick: bool) -> Result<(), String> {
    match suite.reason_to_skip(is_root, quick) {
        Some(reason) => Err(reason.to_owned()),
        None => ensure_debian(suite.packages()).map_err(|error| format!("{error:#}")),
    }
}

/// Prints each suite, the skips, and the sum in `cargo test`'s words.
fn report(outcomes: &[Outcome], skips_are_failures: bool, took: Duration) -> Result<()> {
    println!("\n{:<16} {:>7} {:>7} {:>8} {:>9}", "suite", "passed", "failed", "skipped", "time");
    for outcome in outcomes {
        println!("{outcome}");
    }
    println!("{:<16} {:>34}", "all", libtest::minutes(took));
    for figures in outcomes.iter().flat_map(|outcome| &outcome.figures) {
        println!("{figures}");
    }
    let skips: Vec<&Skip> = outcomes.iter().flat_map(|outcome| &outcome.skips).collect();
    for Skip { name, reason, .. } in &skips {
        println!("skipped: {name}: {reason}");
    }
    match (skips.is_empty(), skips_are_failures) {
        (true, _) => println!("nothing skipped"),
        (false, true) => println!("CI=true: a skip counts as a failure"),
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
