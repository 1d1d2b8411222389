//! Updates the tables in `docs/performance.md` between two marks.

use std::fs;

use anyhow::{Context, Result};

use super::report::{Run, Table, tables};
use crate::{marked, workspace::Workspace};

const PAGE: &str = "docs/performance.md";
const BEGIN: &str = "<!-- `cargo xtask bench --write-docs` writes this part -->\n";
const END: &str = "<!-- end of that part -->\n";

pub fn write(workspace: &Workspace, run: &Run) -> Result<()> {
    let path = workspace.root.join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let page = marked::replace(&page, (BEGIN, END), &part(run))
        .with_context(|| format!("{} has lost its marks", path.display()))?;
    fs::write(&path, page).with_context(|| format!("write {}", path.display()))
}

fn part(run: &Run) -> String {
    let tables: String = tables(run).iter().map(|table: &Table| table.markdown() + "\n").collect();
    format!("\n{}.\n\n{tables}", run.heading())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::reach::ROWS;

    const NOW: &str = include_str!("../../../docs/performance.md");

    #[test]
    fn the_page_has_each_figure_between_its_marks() {
        assert!(marked::replace(NOW, (BEGIN, END), "").is_some());
        for row in ROWS.iter().filter(|row| !row.key.ends_with(".other")) {
            assert!(NOW.contains(&format!("| {} |", row.name)), "{} is not in {PAGE}", row.name);
        }
    }
}
