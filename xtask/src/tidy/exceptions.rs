//! The number of violations that each rule still has, which may only fall.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::problem::Problem;

/// Violations by rule.
pub type Counts = BTreeMap<String, usize>;

pub fn count(problems: &[Problem]) -> Counts {
    let mut counts = Counts::new();
    for problem in problems {
        *counts.entry(problem.rule.to_owned()).or_default() += 1;
    }
    counts
}

/// Reads lines of the form `rule: count`.
pub fn parse(text: &str) -> Result<Counts> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (rule, count) = line.split_once(": ").with_context(|| format!("no `rule: count`: {line}"))?;
            Ok((rule.to_owned(), count.parse().with_context(|| format!("no number: {line}"))?))
        })
        .collect()
}

pub fn to_text(counts: &Counts) -> String {
    let head =
        "# Violations that each rule still has. A number may only fall: UPDATE_GOLDEN=1 cargo xtask tidy\n";
    counts.iter().fold(head.to_owned(), |text, (rule, count)| text + &format!("{rule}: {count}\n"))
}

/// The rules with more violations than are listed are an error; true where some have fewer.
pub fn compare(listed: &Counts, now: &Counts) -> Result<bool> {
    let of = |counts: &Counts, rule: &str| counts.get(rule).copied().unwrap_or(0);
    let higher: Vec<String> = now
        .iter()
        .filter(|(rule, count)| **count > of(listed, rule))
        .map(|(rule, count)| format!("{rule}: {count} problems, {} are listed", of(listed, rule)))
        .collect();
    if !higher.is_empty() {
        bail!("{}", higher.join("\n"));
    }
    Ok(listed.iter().any(|(rule, count)| of(now, rule) < *count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_may_only_fall() {
        let listed = parse("# head\na: 2\nb: 1\n").unwrap();
        assert!(!compare(&listed, &listed).unwrap());
        assert!(compare(&listed, &parse("a: 2\n").unwrap()).unwrap());
        let error = compare(&listed, &parse("a: 3\nb: 1\nc: 1\n").unwrap()).unwrap_err().to_string();
        assert_eq!(error, "a: 3 problems, 2 are listed\nc: 1 problems, 0 are listed");
    }

    #[test]
    fn the_list_reads_itself_back() {
        let problem = |rule| Problem::new("a.rs", 1, rule, "");
        let counts = count(&[problem("a"), problem("b"), problem("a")]);
        assert_eq!(parse(&to_text(&counts)).unwrap(), counts);
        assert!(parse("a 1\n").is_err());
        assert!(parse("a: x\n").is_err());
    }
}
