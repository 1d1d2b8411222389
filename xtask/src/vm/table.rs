//! Renders the results of tests by kernel, with reasons below.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

/// The result of one test on one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    /// The kernel lacks features for parts of the test, each with its reason. The rest passed.
    PassedInPart(Vec<String>),
    Unsupported(String),
    Failed(String),
}

/// One kernel.
#[derive(Debug)]
pub struct Column {
    pub version: String,
    /// The output of `uname -r`.
    pub release: String,
    pub debian: String,
    pub results: Vec<(String, Verdict)>,
}

impl Verdict {
    /// Derives the verdict from libtest's exit status and output, and the skip log.
    pub fn of(status: i32, output_text: &str, skips: &str) -> Self {
        if status != 0 {
            return Self::Failed(
                panic_message(output_text).unwrap_or_else(|| format!("exit status {status}")),
            );
        }
        let skips: Vec<(&str, &str)> = skips.lines().filter_map(|line| line.split_once('\t')).collect();
        if let Some((_, reason)) = skips.iter().find(|(name, _)| !name.contains(' ')) {
            return Self::Unsupported((*reason).to_owned());
        }
        let parts = skips.iter().filter_map(|(name, reason)| {
            let part = name.split_once(' ')?.1;
            Some(format!("not {part}: {reason}"))
        });
        let parts: Vec<String> = parts.collect::<BTreeSet<_>>().into_iter().collect();
        if parts.is_empty() { Self::Passed } else { Self::PassedInPart(parts) }
    }

    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_))
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Passed | Self::PassedInPart(_) => "pass",
            Self::Unsupported(_) => "unsupported",
            Self::Failed(_) => "FAIL",
        }
    }

    fn reasons(&self) -> &[String] {
        match self {
            Self::Passed => &[],
            Self::PassedInPart(parts) => parts,
            Self::Unsupported(reason) | Self::Failed(reason) => std::slice::from_ref(reason),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        self.reasons().iter().try_for_each(|reason| write!(f, "; {reason}"))
    }
}

impl Column {
    /// Returns the names of failed tests.
    pub fn failures(&self) -> Vec<&str> {
        let failed = self.results.iter().filter(|(_, verdict)| verdict.is_failure());
        failed.map(|(test, _)| test.as_str()).collect()
    }

    fn verdict(&self, test: &str) -> Option<&Verdict> {
        self.results.iter().find(|(name, _)| name == test).map(|(_, verdict)| verdict)
    }
}

/// Renders for a terminal.
pub fn text(columns: &[Column]) -> String {
    let rows = rows(columns);
    let width = |column: usize| rows.cells.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..=columns.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows.cells {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    for (index, reason) in rows.reasons.iter().enumerate() {
        let _ = writeln!(text, "[{}] {reason}", index + 1);
    }
    text
}

/// Renders for a page.
pub fn markdown(columns: &[Column]) -> String {
    let rows = rows(columns);
    let mut text = String::new();
    for (index, row) in rows.cells.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if index == 0 {
            let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
        }
    }
    for (index, reason) in rows.reasons.iter().enumerate() {
        let _ = write!(text, "\n[{}] {}\n", index + 1, reason.replace('<', "&lt;"));
    }
    text
}

struct Rows {
    /// The first row has the headings.
    cells: Vec<Vec<String>>,
    /// Each reason once, for any number of cells.
    reasons: Vec<String>,
}

fn rows(columns: &[Column]) -> Rows {
    let headings = columns.iter().map(|column| format!("Linux {}", column.version));
    let mut cells = vec![std::iter::once("test".to_owned()).chain(headings).collect::<Vec<_>>()];
    let mut reasons: Vec<String> = Vec::new();
    for (test, _) in columns.first().map(|column| column.results.as_slice()).unwrap_or_default() {
        let mut row = vec![test.clone()];
        for column in columns {
            let Some(verdict) = column.verdict(test) else {
                row.push("–".to_owned());
                continue;
            };
            let mut cell = verdict.word().to_owned();
            for reason in verdict.reasons() {
                let known = reasons.iter().position(|known| known == reason);
                let number = known.unwrap_or_else(|| {
                    reasons.push(reason.clone());
                    reasons.len() - 1
                });
                let _ = write!(cell, " [{}]", number + 1);
            }
            row.push(cell);
        }
        cells.push(row);
    }
    Rows { cells, reasons }
}

/// Returns the first line of a panic message, which follows the line with the location.
fn panic_message(output_text: &str) -> Option<String> {
    let (_, after) = output_text.split_once(" panicked at ")?;
    let mut lines = after.lines();
    let place = lines.next()?.trim_end_matches(':');
    Some(format!("{place}: {}", lines.next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_follows_status_and_skips() {
        assert_eq!(Verdict::of(0, "", ""), Verdict::Passed);
        let skip = "a::b\tno TCX\n";
        assert_eq!(Verdict::of(0, "", skip), Verdict::Unsupported("no TCX".into()));
        let part = Verdict::of(0, "", "a::b by tcx\tEINVAL\n");
        assert_eq!(part, Verdict::PassedInPart(vec!["not by tcx: EINVAL".into()]));
        let output_text = "thread 'a::b' (1) panicked at tests/a.rs:3:4:\nassertion failed\nnote: …\n";
        assert_eq!(
            Verdict::of(101, output_text, skip),
            Verdict::Failed("tests/a.rs:3:4: assertion failed".into())
        );
        assert_eq!(Verdict::of(137, "", ""), Verdict::Failed("exit status 137".into()));
    }

    #[test]
    fn a_reason_is_printed_once() {
        let part = || Verdict::PassedInPart(vec!["not by tcx: EINVAL".into()]);
        let column = |version: &str, a, b| Column {
            version: version.into(),
            release: format!("{version}.0"),
            debian: "d".into(),
            results: vec![("a".into(), a), ("b".into(), b)],
        };
        let columns = [column("5.10", part(), part()), column("7.2", Verdict::Passed, Verdict::Passed)];
        assert_eq!(
            text(&columns),
            "test  Linux 5.10  Linux 7.2\na     pass [1]    pass\nb     pass [1]    pass\n\
             [1] not by tcx: EINVAL\n"
        );
        assert!(markdown(&columns).starts_with("| test | Linux 5.10 | Linux 7.2 |\n|---|---|---|\n| a |"));
    }
}
