//! Updates the table in `docs/kernel-support.md` between two marks.

use std::fs;

use anyhow::{Context, Result};

use super::table::{Column, markdown};
use crate::{marked, workspace::Workspace};

const PAGE: &str = "docs/kernel-support.md";
const BEGIN: &str = "<!-- `cargo xtask vm --write-docs` writes this part -->\n";
const END: &str = "<!-- end of that part -->\n";

pub fn write(workspace: &Workspace, columns: &[Column]) -> Result<()> {
    let path = workspace.root.join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let page = marked::replace(&page, (BEGIN, END), &part(columns))
        .with_context(|| format!("{} has lost its marks", path.display()))?;
    fs::write(&path, page).with_context(|| format!("write {}", path.display()))
}

fn part(columns: &[Column]) -> String {
    let kernels = columns.iter().map(|Column { version, release, debian, .. }| {
        format!("| {version} | `{release}` | Debian {debian} |\n")
    });
    let kernels: String = kernels.collect();
    format!("\n| Linux | kernel | from |\n|---|---|---|\n{kernels}\n{}\n", markdown(columns))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const NOW: &str = include_str!("../../../docs/kernel-support.md");

    #[test]
    fn the_page_has_the_marks() {
        assert!(marked::replace(NOW, (BEGIN, END), "").is_some());
    }

    /// A test that is newer than the table has no result yet.
    #[test]
    fn each_row_names_an_existing_test() {
        let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/privileged");
        let rows = NOW.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
        let tests: Vec<&str> = rows.map(|(name, _)| name).filter(|name| name.contains("::")).collect();
        assert!(!tests.is_empty());
        for test in tests {
            let (module, name) = test.rsplit_once("::").unwrap();
            let path = suite.join(module.replace("::", "/"));
            let files = [path.with_extension("rs"), path.join("mod.rs")];
            let source = files.iter().find_map(|file| fs::read_to_string(file).ok()).unwrap_or_default();
            let function = format!("#[test]\nfn {name}() {{");
            assert!(source.contains(&function), "{test} is in {PAGE} and not in the suite");
        }
    }
}
