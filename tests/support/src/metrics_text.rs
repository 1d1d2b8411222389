//! A strict parser of the Prometheus text format 0.0.4.
//!
//! It also refuses duplicate samples, which promtool permits.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
    /// The type by family name: `counter`, `gauge`, `histogram`, `summary` or `untyped`.
    kinds: HashMap<String, String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    /// In the order of the text.
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

impl Metrics {
    /// Refuses duplicate samples, samples without `# TYPE` before them, split families, bad names and escapes.
    pub fn parse(text: &str) -> Result<Self> {
        ensure!(text.is_empty() || text.ends_with('\n'), "the last line does not end");
        let mut reader = Reader::default();
        for (index, line) in text.lines().enumerate() {
            reader.line(line).with_context(|| format!("line {}: {line}", index + 1))?;
        }
        Ok(reader.metrics)
    }

    /// Returns the value of the one sample that has all these labels and perhaps others.
    ///
    /// # Panics
    ///
    /// When several samples have these labels, because the test is then ambiguous.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.samples(name).filter(|sample| sample.has(labels));
        let sample = found.next()?;
        assert!(found.next().is_none(), "{name}{labels:?} is more than one sample");
        Some(sample.value)
    }

    /// Returns the seconds since this time.
    pub fn age(&self, timestamp: &str) -> Option<f64> {
        let at = self.value(timestamp, &[])?;
        Some(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64() - at)
    }

    /// Returns all samples of this name.
    pub fn samples<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.name == name)
    }

    /// Returns the type of a family.
    pub fn kind(&self, family: &str) -> Option<&str> {
        self.kinds.get(family).map(String::as_str)
    }

    /// Returns the sorted names of all families.
    pub fn families(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.kinds.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

impl Sample {
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }

    fn has(&self, labels: &[(&str, &str)]) -> bool {
        // Prometheus treats an empty label as absent.
        labels.iter().all(|(name, value)| self.label(name).unwrap_or_default() == *value)
    }
}

#[derive(Default)]
struct Reader {
    metrics: Metrics,
    family: String,
    /// Families with a line so far.
    begun: HashSet<String>,
    with_help: HashSet<String>,
    seen: HashSet<(String, Vec<(String, String)>)>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<()> {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, _) = rest.split_once(' ').unwrap_or((rest, ""));
            self.enter(name)?;
            ensure!(self.with_help.insert(name.to_owned()), "a second HELP");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').context("a TYPE without a type")?;
            self.enter(name)?;
            let known = ["counter", "gauge", "histogram", "summary", "untyped"];
            ensure!(known.contains(&kind), "no type: {kind}");
            let former = self.metrics.kinds.insert(name.to_owned(), kind.to_owned());
            ensure!(former.is_none(), "a second TYPE");
        } else if !line.is_empty() && !line.starts_with('#') {
            let sample = sample(line)?;
            let family = self.family_of(&sample.name)?;
            self.enter(&family)?;
            let mut labels = sample.labels.clone();
            labels.sort_unstable();
            ensure!(labels.windows(2).all(|pair| pair[0].0 != pair[1].0), "a label given twice");
            ensure!(self.seen.insert((sample.name.clone(), labels)), "a sample given twice");
            self.metrics.samples.push(sample);
        }
        Ok(())
    }

    /// Enters a family, whose lines must be contiguous.
    fn enter(&mut self, family: &str) -> Result<()> {
        if self.family != family {
            ensure!(is_name(family, true), "no metric name: {family:?}");
            ensure!(self.begun.insert(family.to_owned()), "{family} again, after another family");
            self.family = family.to_owned();
        }
        Ok(())
    }

    /// Returns the family of a sample; a histogram's samples have suffixes.
    fn family_of(&self, sample: &str) -> Result<String> {
        if self.metrics.kinds.contains_key(sample) {
            return Ok(sample.to_owned());
        }
        for suffix in ["_bucket", "_sum", "_count"] {
            let family = sample.strip_suffix(suffix).unwrap_or_default();
            match self.metrics.kind(family) {
                Some("histogram") => return Ok(family.to_owned()),
                Some("summary") if suffix != "_bucket" => return Ok(family.to_owned()),
                _ => {}
            }
        }
        bail!("no TYPE for {sample}")
    }
}

/// Parses `name value` or `name{label="text",…} value`, with an optional time stamp.
fn sample(line: &str) -> Result<Sample> {
    let end = line.find(['{', ' ']).context("a name and no value")?;
    let (name, mut rest) = line.split_at(end);
    ensure!(is_name(name, true), "no metric name: {name:?}");
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        (labels, rest) = label_set(inside)?;
    }
    let mut numbers = rest.split_ascii_whitespace();
    let value = numbers.next().context("no value")?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        _ => value.parse().with_context(|| format!("no number: {value}"))?,
    };
    if let Some(stamp) = numbers.next() {
        stamp.parse::<i64>().with_context(|| format!("no time stamp: {stamp}"))?;
    }
    ensure!(numbers.next().is_none(), "more than a value and a time stamp");
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// Parses labels up to the closing brace, and returns the rest.
fn label_set(mut rest: &str) -> Result<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (name, after) = rest.split_once("=\"").context("no label")?;
        ensure!(is_name(name, false), "no label name: {name:?}");
        let (value, after) = label_value(after)?;
        labels.push((name.to_owned(), value));
        rest = match after.strip_prefix(',') {
            Some(more) => more,
            None => after,
        };
        ensure!(after.starts_with([',', '}']), "neither , nor }} after a label");
    }
}

/// Parses up to the closing quote, resolves escapes, and returns the rest.
fn label_value(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match characters.next() {
                Some((_, 'n')) => '\n',
                Some((_, same @ ('\\' | '"'))) => same,
                other => bail!("no escape: {other:?}"),
            }),
            other => value.push(other),
        }
    }
    bail!("a label value without its closing quote")
}

fn is_name(name: &str, colon: bool) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':');
    !name.is_empty() && name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"1\",y=\"q\\\"\\\\\\n}\"} 2\n\
        a_total{x=\"2\"} 3.5 17\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 4\nh_count 1\n";

    #[test]
    fn finds_values_by_name_and_labels() {
        let metrics = Metrics::parse(GOOD).unwrap();
        assert_eq!(metrics.value("a_total", &[("x", "1")]), Some(2.0));
        assert_eq!(metrics.value("a_total", &[("y", "q\"\\\n}")]), Some(2.0));
        assert_eq!(metrics.value("a_total", &[("x", "3")]), None);
        assert_eq!(metrics.value("h_sum", &[]), Some(4.0));
        assert_eq!(metrics.kind("h"), Some("histogram"));
        assert_eq!(metrics.families(), ["a_total", "h"]);
    }

    #[test]
    #[should_panic(expected = "more than one sample")]
    fn an_ambiguous_question_has_no_answer() {
        Metrics::parse(GOOD).unwrap().value("a_total", &[]);
    }

    #[test]
    fn refuses_what_is_not_the_format() {
        let bad = [
            ("a 1\n", "no TYPE"),
            ("# TYPE a gauge\na{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 1\n", "a sample given twice"),
            ("# TYPE a gauge\na 1\n# TYPE b gauge\nb 1\na{x=\"1\"} 1\n", "again"),
            ("# TYPE a gauge\na{x=\"1\" 1\n", "neither"),
            ("# TYPE a gauge\na{x=\"1\n", "closing quote"),
            ("# TYPE a gauge\na{x=\"\\t\"} 1\n", "no escape"),
            ("# TYPE a gauge\na{x=\"1\",x=\"2\"} 1\n", "a label given twice"),
            ("# TYPE a gauge\na one\n", "no number"),
            ("# TYPE a gauge\na 1", "does not end"),
            ("# TYPE a thing\n", "no type"),
            ("# TYPE 1a gauge\n", "no metric name"),
        ];
        for (text, why) in bad {
            let error = format!("{:#}", Metrics::parse(text).expect_err(text));
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }
}
