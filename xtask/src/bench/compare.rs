//! `cargo xtask bench --compare A.json B.json`: two runs, figure by figure.

use std::path::Path;

use anyhow::Result;

use super::report::{Run, Table, number};

/// Prints the medians of both runs, and the second one in parts of the first.
pub fn compare(one: &Path, other: &Path) -> Result<()> {
    let (one, other) = (Run::read(one)?, Run::read(other)?);
    println!("A: {}\nB: {}\n\n{}", one.heading(), other.heading(), table(&one, &other).text());
    Ok(())
}

fn table(one: &Run, other: &Run) -> Table {
    let both = one.figures.medians_below("").filter_map(|(key, a)| {
        let b = other.figures.median(key)?;
        let change = if a == 0.0 { "-".to_owned() } else { number(b / a) };
        Some(vec![key.to_owned(), number(a), number(b), change])
    });
    Table::new(vec!["figure", "A", "B", "B / A"], both.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{figures::Figures, machine::Machine};

    #[test]
    fn figures_of_one_run_only_are_left_out() {
        let run = |figures: &[(&str, f64)]| {
            let mut all = Figures::default();
            figures.iter().for_each(|(key, value)| all.add(*key, *value));
            let machine = Machine { cpu: String::new(), cores: 2, kernel: String::new(), load: 0.0 };
            Run { machine, vms: 10, rounds: 1, figures: all }
        };
        let text = table(&run(&[("a", 4.0), ("b", 1.0)]), &run(&[("a", 2.0), ("c", 1.0)])).text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["a", "4", "2", "0.500"]);
    }
}
