//! `cargo xtask test`: everything that this machine can test, and at the end what was skipped and why.
//!
//! A suite that cannot run here is skipped as a whole. A single test that finds that it cannot run appends a line
//! `name<TAB>reason` to the file named by the environment variable `VM_METRICS_SKIP_LOG`, and returns. With `CI=true`
//! a skip is a failure.

mod libtest;
mod suites;

use std::env;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use vm_metrics_testkit::packages::ensure_debian;

use self::libtest::{Outcome, Skip};
use self::suites::Suite;
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
    let mut total = Outcome::default();
    for suite in suites::suites(workspace) {
        let outcome = match suite.reason_to_skip(is_root, options.quick) {
            Some(reason) => Outcome::skipped(&suite.name, reason),
            None => run(workspace, &suite)?,
        };
        total.add(outcome);
    }
    report(total, start)
}

fn run(workspace: &Workspace, suite: &Suite) -> Result<Outcome> {
    eprintln!("xtask: suite {}", suite.name);
    let start = Instant::now();
    let outcome = libtest::run(workspace, suite)?;
    let Outcome { passed, failed, .. } = &outcome;
    eprintln!(
        "xtask: suite {}: {passed} passed, {failed} failed in {} s",
        suite.name,
        start.elapsed().as_secs()
    );
    Ok(outcome)
}

/// The closing lines: what failed, what was skipped, and the sum in the words of `cargo test`.
fn report(total: Outcome, start: Instant) -> Result<()> {
    let skips_are_failures = env::var_os("CI").is_some_and(|value| value == "true");
    println!();
    for suite in &total.failed_suites {
        println!("failed: {suite}");
    }
    for Skip { name, reason } in &total.skips {
        println!("skipped: {name}: {reason}");
    }
    if total.skips.is_empty() {
        println!("nothing skipped");
    } else if skips_are_failures {
        println!("CI=true: what is skipped has failed");
    }
    let failed = !total.failed_suites.is_empty() || (skips_are_failures && !total.skips.is_empty());
    println!(
        "test result: {}. {} passed; {} failed; {} ignored; 0 measured; 0 filtered out; finished in {:.2}s",
        if failed { "FAILED" } else { "ok" },
        total.passed,
        total.failed,
        total.skips.len(),
        start.elapsed().as_secs_f64()
    );
    if failed {
        bail!("test failed");
    }
    Ok(())
}
