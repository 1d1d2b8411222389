//! Compares the public API with a list in the repository.
//!
//! A review sees each change, and the check names breaking ones.

use std::collections::BTreeSet;
use std::env;
use std::fs;

use anyhow::{Context, Result, bail};
use public_api::Builder;

use crate::command::{cargo, run};
use crate::workspace::Workspace;

const LIST: &str = "vm-metrics/public-api.txt";

/// Compares the list with the code, or rewrites it with `UPDATE_GOLDEN=1`.
pub fn public_api(workspace: &Workspace) -> Result<()> {
    let now = of_the_code(workspace)?;
    let path = workspace.root.join(LIST);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        return fs::write(&path, now).with_context(|| format!("cannot write {}", path.display()));
    }
    let listed = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    match difference(&listed, &now) {
        None => Ok(()),
        Some(difference) => bail!(
            "{LIST} differs from the code:\n{difference}\nIf this is intended: UPDATE_GOLDEN=1 cargo xtask check"
        ),
    }
}

/// Returns one item a line, sorted, without the items that every type has.
fn of_the_code(workspace: &Workspace) -> Result<String> {
    // rustdoc's JSON is unstable. A separate directory keeps the other dependencies built. The eBPF feature adds only
    // private items, and would rebuild its programs there.
    let target = workspace.target.join("public-api");
    run(cargo(workspace, "rustdoc")
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["--quiet", "--package", "vm-metrics", "--lib"])
        .args(["--no-default-features", "--features", "otel", "--target-dir"])
        .arg(&target)
        .args(["--", "-Zunstable-options", "--output-format", "json"]))?;
    let api = Builder::from_rustdoc_json(target.join("doc/vm_metrics.json"))
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .context("cannot read the JSON of rustdoc")?;
    Ok(api.to_string())
}

/// Returns the missing and the new items of the list.
fn difference(listed: &str, now: &str) -> Option<String> {
    let (before, after): (BTreeSet<&str>, BTreeSet<&str>) = (listed.lines().collect(), now.lines().collect());
    let lines = |title: &str, lines: Vec<&&str>| match lines.is_empty() {
        true => String::new(),
        false => lines.iter().fold(format!("{title}\n"), |text, line| text + "  " + line + "\n"),
    };
    let gone = lines("gone or changed, which breaks programs:", before.difference(&after).collect());
    let new = lines("new:", after.difference(&before).collect());
    Some(gone + &new).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaking_and_additive_changes_are_distinguished() {
        assert_eq!(difference("pub fn a()\npub fn b()\n", "pub fn b()\npub fn a()"), None);
        let changed =
            difference("pub fn a()\npub fn b()\n", "pub fn a(u8)\npub fn b()\npub fn c()\n").unwrap();
        let expected =
            "gone or changed, which breaks programs:\n  pub fn a()\nnew:\n  pub fn a(u8)\n  pub fn c()\n";
        assert_eq!(changed, expected);
    }
}
