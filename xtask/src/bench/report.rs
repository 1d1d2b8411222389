//! A run as a table, as Markdown and as JSON.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{
    figures::Figures,
    growth,
    machine::Machine,
    reach::{RATIOS, ROWS, Verdict},
};

/// The ending of figures of a daemon whose configuration this build may refuse.
const OPTIONAL: &str = ".task_iter";
/// The ending of figures that only a run with `--other` has.
const OTHER: &str = ".other";
const COMPONENT: &str = "component.";

#[derive(Debug, Serialize, Deserialize)]
pub struct Run {
    pub machine: Machine,
    pub vms: u32,
    pub rounds: u32,
    pub figures: Figures,
}

impl Run {
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("read the figures in {}", file.display()))
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("write the figures as JSON")?;
        fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))
    }

    pub fn heading(&self) -> String {
        let Self { machine, vms, rounds, .. } = self;
        let Machine { cpu, cores, kernel, load } = machine;
        format!(
            "{vms} stand-in VMs, medians of {rounds} rounds; {cpu}, {cores} CPUs, Linux {kernel}, load {load:.1} before"
        )
    }
}

/// Tables with a heading, each row with the same number of cells.
#[derive(Debug)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

pub fn tables(run: &Run) -> Vec<Table> {
    let all = [figures(&run.figures), ratios(&run.figures), components(&run.figures), growths(&run.figures)];
    all.into_iter().filter(|table| !table.rows.is_empty()).collect()
}

fn figures(figures: &Figures) -> Table {
    let other = |key: &str| key.ends_with(OTHER) && figures.median(key).is_none();
    let rows = ROWS.iter().filter(|row| !other(row.key)).map(|row| {
        let absent = if row.key.ends_with(OPTIONAL) { "not built in" } else { "not measured" };
        let value = figures.median(row.key).map_or_else(|| absent.to_owned(), number);
        vec![row.name.to_owned(), value, row.unit.to_owned(), row.reach.to_owned()]
    });
    Table::new(vec!["figure", "measured", "unit", "reach"], rows.collect())
}

fn ratios(figures: &Figures) -> Table {
    let rows = RATIOS.iter().filter_map(|ratio| {
        let verdict = match ratio.verdict(figures) {
            Verdict::Reached => "reached",
            Verdict::NotReached => "not reached",
            Verdict::TooLarge => "too large",
            Verdict::Unguarded => "",
            Verdict::NotMeasured => return None,
        };
        let limit =
            |value: f64| if value.is_finite() { format!("≤ {}", number(value)) } else { String::new() };
        let value = number(ratio.value(figures)?);
        Some(vec![ratio.name.to_owned(), value, limit(ratio.reach), limit(ratio.guard()), verdict.to_owned()])
    });
    Table::new(vec!["ratio", "measured", "reach", "guard of --quick", "verdict"], rows.collect())
}

/// The dearest first.
fn components(figures: &Figures) -> Table {
    let mut costs: Vec<_> = figures.medians_below(COMPONENT).collect();
    costs.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let rows = costs.into_iter().filter(|(_, cost)| *cost >= 0.005);
    let rows = rows.map(|(name, cost)| vec![format!("`{name}`"), number(cost)]);
    Table::new(vec!["source or reader in a tick", "µs/VM, wall clock"], rows.collect())
}

fn growths(figures: &Figures) -> Table {
    let memory = growth::points(figures, "memory");
    let rows = growth::points(figures, "tick")
        .into_iter()
        .zip(memory)
        .map(|((vms, tick), (_, memory))| vec![vms.to_string(), number(tick), number(memory)]);
    Table::new(vec!["VMs", "a tick, ms of CPU", "resident, MiB"], rows.collect())
}

impl Table {
    pub fn new(head: Vec<&'static str>, rows: Vec<Vec<String>>) -> Self {
        Self { head, rows }
    }

    pub fn text(&self) -> String {
        let rows = || {
            [self.head.iter().map(|cell| (*cell).to_owned()).collect()].into_iter().chain(self.rows.clone())
        };
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                rows().map(|row: Vec<String>| row[column].chars().count()).max().unwrap_or_default()
            })
            .collect();
        let line = |row: Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        rows().map(line).collect()
    }

    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let head: Vec<String> = self.head.iter().map(|cell| (*cell).to_owned()).collect();
        let rule = format!("|{}\n", "---|".repeat(self.head.len()));
        line(&head) + &rule + &self.rows.iter().map(|row| line(row)).collect::<String>()
    }
}

/// Shows three digits at least.
pub fn number(value: f64) -> String {
    let decimals = match value.abs() {
        _ if value.fract() == 0.0 => 0,
        size if size < 1.0 => 3,
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_figure_has_its_reason() {
        let mut run = Figures::default();
        run.add("plain.four_opened", 50.25);
        run.add("tick_1hz.default", 100.5);
        let text = figures(&run).text();
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(line("a tick, once a second  ").contains("100    "), "{text}");
        assert!(line("a tick, once a second, with task_iter").contains("not built in"), "{text}");
        assert!(line("open files").contains("not measured"), "{text}");
        let ratios = ratios(&run);
        assert_eq!(ratios.rows.len(), 1);
        assert_eq!(ratios.rows[0][1..3], ["2", "≤ 0.100"]);
    }

    #[test]
    fn markdown_has_a_rule_below_its_head() {
        let table = Table::new(vec!["a", "b"], vec![vec!["1".to_owned(), "2".to_owned()]]);
        assert_eq!(table.markdown(), "| a | b |\n|---|---|\n| 1 | 2 |\n");
        assert_eq!(table.text(), "a  b\n1  2\n");
    }
}
