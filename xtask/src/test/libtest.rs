//! Running one suite, and reading from its output and its skip log what came of it.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};

use super::suites::Suite;
use crate::{
    command::{cargo, line},
    workspace::Workspace,
};

const SKIP_LOG: &str = "VM_METRICS_SKIP_LOG";

/// What came of a suite, or of all of them.
#[derive(Debug, Default)]
pub struct Outcome {
    pub passed: u64,
    pub failed: u64,
    pub failed_suites: Vec<String>,
    pub skips: Vec<Skip>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Skip {
    pub name: String,
    pub reason: String,
}

impl Outcome {
    pub fn skipped(suite: &str, reason: &str) -> Self {
        let skip = Skip { name: suite.to_owned(), reason: reason.to_owned() };
        Self { skips: vec![skip], ..Self::default() }
    }

    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failed_suites.extend(other.failed_suites);
        self.skips.extend(other.skips);
    }
}

/// Runs a suite to its end; its output passes through.
pub fn run(workspace: &Workspace, suite: &Suite) -> Result<Outcome> {
    let skip_log = workspace.target.join("skipped-tests.log");
    fs::write(&skip_log, "").with_context(|| format!("cannot write {}", skip_log.display()))?;

    let mut cargo = cargo(workspace, "test");
    cargo.arg("--no-fail-fast").args(&suite.arguments).env(SKIP_LOG, &skip_log).stdout(Stdio::piped());
    if let Some(threads) = suite.threads() {
        cargo.arg("--").arg(format!("--test-threads={threads}"));
    }
    let mut child = cargo.spawn().with_context(|| format!("cannot run {}", line(&cargo)))?;
    let mut outcome = Outcome::default();
    if let Some(stdout) = child.stdout.take() {
        for text in BufReader::new(stdout).split(b'\n') {
            let text = text.with_context(|| format!("cannot read the output of {}", line(&cargo)))?;
            let text = String::from_utf8_lossy(&text);
            println!("{text}");
            outcome.add(result_line(&suite.name, &text).unwrap_or_default());
        }
    }
    let status = child.wait().with_context(|| format!("cannot wait for {}", line(&cargo)))?;
    if !status.success() {
        outcome.failed_suites.push(format!("{}: {} ({status})", suite.name, line(&cargo)));
    }
    outcome.skips.extend(read_skips(&suite.name, &skip_log)?);
    Ok(outcome)
}

/// The numbers of `test result: ok. 3 passed; 0 failed; 1 ignored; …`. An ignored test is a skipped one.
fn result_line(suite: &str, text: &str) -> Option<Outcome> {
    let counts = text.strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |what: &str| {
        let mut words = counts.split("; ").filter_map(|part| part.split_once(' '));
        words.find(|(_, word)| *word == what)?.0.parse::<u64>().ok()
    };
    let mut outcome = match count("ignored")? {
        0 => Outcome::default(),
        ignored => Outcome::skipped(suite, &format!("{ignored} marked as ignored")),
    };
    outcome.passed = count("passed")?;
    outcome.failed = count("failed")?;
    Some(outcome)
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
    lines.map(|(test, reason)| Skip { name: format!("{suite}: {test}"), reason: reason.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_from_the_result_lines_only() {
        let line = "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.00s";
        let outcome = result_line("unit", line).unwrap();
        assert_eq!((outcome.passed, outcome.failed, outcome.skips), (3, 1, vec![]));
        assert!(result_line("unit", "test result::parses ... ok").is_none());
        assert!(result_line("unit", "running 3 tests").is_none());
    }

    #[test]
    fn ignored_tests_are_skips() {
        let line =
            "test result: ok. 3 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(
            result_line("doc", line).unwrap().skips,
            Outcome::skipped("doc", "2 marked as ignored").skips
        );
    }

    #[test]
    fn a_skipped_test_has_a_name_and_a_reason() {
        let skips = parse_skips("e2e", "scrape\tno prometheus\nother\n");
        let texts: Vec<_> = skips.iter().map(|skip| (skip.name.as_str(), skip.reason.as_str())).collect();
        assert_eq!(texts, [("e2e: scrape", "no prometheus"), ("e2e: other", "no reason given")]);
    }
}
