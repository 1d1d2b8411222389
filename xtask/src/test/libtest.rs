//! Runs one suite and parses its output and skip log.

use std::fmt;
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::suites::Suite;
use crate::{
    command::{cargo, line},
    workspace::Workspace,
};

const SKIP_LOG: &str = "TESTKIT_SKIP_LOG";
/// Prefix of a line with measured figures.
const FIGURES: &str = "figures: ";

/// The result of a suite.
#[derive(Debug, Default)]
pub struct Outcome {
    suite: String,
    pub passed: usize,
    pub failed: usize,
    /// The command line of a failed run.
    pub failure: Option<String>,
    pub skips: Vec<Skip>,
    pub figures: Vec<String>,
    took: Duration,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Skip {
    pub name: String,
    /// Whether it covers a whole test or suite.
    is_whole: bool,
    pub reason: String,
}

impl Outcome {
    /// Returns the result of a suite that did not run.
    pub fn skipped(suite: &str, reason: &str) -> Self {
        let skip = Skip { name: suite.to_owned(), is_whole: true, reason: reason.to_owned() };
        Self { suite: suite.to_owned(), skips: vec![skip], ..Self::default() }
    }

    fn count(&mut self, counts: &Counts) {
        self.passed += counts.passed;
        self.failed += counts.failed;
        if counts.ignored > 0 {
            let reason = format!("{} marked as ignored", counts.ignored);
            self.skips.push(Skip { name: self.suite.clone(), is_whole: true, reason });
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { suite, passed, failed, skips, took, .. } = self;
        let took = minutes(*took);
        write!(f, "{suite:<16} {passed:>7} {failed:>7} {:>8} {took:>9}", skips.len())?;
        self.failure.iter().try_for_each(|failure| write!(f, ": {failure}"))
    }
}

/// Formats a time in minutes and seconds.
pub fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02} min", seconds / 60, seconds % 60)
}

/// Builds the common crates first, so that each suite's time is its own.
pub fn build(workspace: &Workspace) -> Result<Outcome> {
    let start = Instant::now();
    let mut cargo = cargo(workspace, "test");
    cargo.arg("--no-run");
    let status = cargo.status().with_context(|| format!("cannot run {}", line(&cargo)))?;
    let failure = (!status.success()).then(|| format!("{} ({status})", line(&cargo)));
    Ok(Outcome { suite: "build".to_owned(), failure, took: start.elapsed(), ..Outcome::default() })
}

/// Runs a suite; its output passes through.
pub fn run(workspace: &Workspace, suite: &Suite) -> Result<Outcome> {
    let start = Instant::now();
    let skip_log = workspace.target.join("skipped-tests.log");
    fs::write(&skip_log, "").with_context(|| format!("cannot write {}", skip_log.display()))?;

    let mut cargo = cargo(workspace, "test");
    cargo.arg("--no-fail-fast").args(&suite.arguments).env(SKIP_LOG, &skip_log).stdout(Stdio::piped());
    if let Some(threads) = suite.threads() {
        cargo.arg("--").arg(format!("--test-threads={threads}"));
    }
    let mut outcome = Outcome { suite: suite.name.clone(), ..Outcome::default() };
    let mut child = cargo.spawn().with_context(|| format!("cannot run {}", line(&cargo)))?;
    if let Some(stdout) = child.stdout.take() {
        for text in BufReader::new(stdout).split(b'\n') {
            let text = text.with_context(|| format!("cannot read the output of {}", line(&cargo)))?;
            let text = String::from_utf8_lossy(&text);
            println!("{text}");
            if let Some(counts) = Counts::parse(&text) {
                outcome.count(&counts);
            }
            outcome.figures.extend(text.strip_prefix(FIGURES).map(str::to_owned));
        }
    }
    let status = child.wait().with_context(|| format!("cannot wait for {}", line(&cargo)))?;
    if !status.success() {
        outcome.failure = Some(format!("{} ({status})", line(&cargo)));
    }
    let logged = read_skips(&suite.name, &skip_log)?;
    // libtest counts a test that skips itself as passed. A test that skips a part did pass.
    let whole = logged.iter().filter(|skip| skip.is_whole).count();
    outcome.passed = outcome.passed.saturating_sub(whole);
    outcome.skips.extend(logged);
    outcome.took = start.elapsed();
    Ok(outcome)
}

/// Parses a line `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Counts {
    fn parse(text: &str) -> Option<Self> {
        let counts = text.strip_prefix("test result: ")?.split_once(". ")?.1;
        let count = |what| {
            let mut words = counts.split("; ").filter_map(|part| part.split_once(' '));
            words.find(|(_, word)| *word == what)?.0.parse().ok()
        };
        Some(Self { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored")? })
    }
}

fn read_skips(suite: &str, skip_log: &Path) -> Result<Vec<Skip>> {
    let log = match fs::read_to_string(skip_log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        log => log.with_context(|| format!("cannot read {}", skip_log.display()))?,
    };
    Ok(parse_skips(suite, &log))
}

fn parse_skips(suite: &str, log: &str) -> Vec<Skip> {
    let lines = log.lines().map(|line| line.split_once('\t').unwrap_or((line, "no reason given")));
    let skips = lines.map(|(test, reason)| Skip {
        name: format!("{suite}: {test}"),
        // The testkit appends the part to the test's name.
        is_whole: !test.contains(' '),
        reason: reason.to_owned(),
    });
    skips.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_from_the_result_lines_only() {
        let line = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 7 filtered out; finished in 0.00s";
        assert_eq!(Counts::parse(line), Some(Counts { passed: 3, failed: 1, ignored: 2 }));
        assert_eq!(Counts::parse("test result::parses ... ok"), None);
        assert_eq!(Counts::parse("running 3 tests"), None);
    }

    #[test]
    fn a_suite_is_a_row_with_its_time() {
        let took = Duration::from_secs(125);
        let outcome = Outcome { suite: "e2e".to_owned(), passed: 7, took, ..Outcome::default() };
        assert_eq!(outcome.to_string(), "e2e                    7       0        0  2:05 min");
    }

    #[test]
    fn ignored_tests_are_skips() {
        let mut outcome = Outcome { suite: "doc".to_owned(), ..Outcome::default() };
        outcome.count(&Counts { passed: 1, failed: 0, ignored: 2 });
        assert_eq!(outcome.skips, Outcome::skipped("doc", "2 marked as ignored").skips);
    }

    #[test]
    fn a_skipped_test_has_name_and_reason() {
        let skips = parse_skips("e2e", "scrape\tno prometheus\nother\nthird by TCX\told\n");
        assert_eq!(skips.iter().map(|skip| skip.is_whole).collect::<Vec<_>>(), [true, true, false]);
        let texts: Vec<_> = skips.iter().map(|skip| (skip.name.as_str(), skip.reason.as_str())).collect();
        assert_eq!(texts[..2], [("e2e: scrape", "no prometheus"), ("e2e: other", "no reason given")]);
    }
}
