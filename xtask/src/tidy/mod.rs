//! `cargo xtask tidy`: the rules of words and layout that no compiler knows.

mod circles;
mod exceptions;
mod identity;
mod length;
mod modules;
mod paths;
mod problem;
mod prose;
mod rooms;
mod roots;
mod source;
mod words;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use self::problem::Problem;
use self::source::Source;
use crate::workspace::Workspace;

/// The numbers of violations that are still allowed.
const EXCEPTIONS: &str = "xtask/src/tidy/exceptions.txt";

#[derive(Debug, Args)]
pub struct Options {
    /// Print only the problems in paths, or of rules, with one of these texts in them
    filters: Vec<String>,
}

/// Prints every problem that the filters let through.
pub fn tidy(workspace: &Workspace, options: &Options) -> Result<()> {
    let problems = all_problems(workspace)?;
    for problem in &problems {
        let wanted = |text: &String| problem.path.contains(text) || problem.rule == text;
        if options.filters.is_empty() || options.filters.iter().any(wanted) {
            println!("{problem}");
        }
    }
    compare(workspace, &problems)
}

/// Prints the problems only of rules that have more than are listed.
pub fn check(workspace: &Workspace) -> Result<()> {
    compare(workspace, &all_problems(workspace)?)
}

fn compare(workspace: &Workspace, problems: &[Problem]) -> Result<()> {
    let path = workspace.root.join(EXCEPTIONS);
    let now = exceptions::count(problems);
    let listed = exceptions::parse(&read(&path)?)?;
    match exceptions::compare(&listed, &now) {
        Ok(true) if env::var_os("UPDATE_GOLDEN").is_some() => {
            fs::write(&path, exceptions::to_text(&now))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(true) => {
            bail!(
                "fewer problems than {EXCEPTIONS} lists: lower its numbers with UPDATE_GOLDEN=1 cargo xtask tidy"
            );
        }
        Ok(false) => {}
        Err(error) => {
            bail!("more problems than {EXCEPTIONS} lists, see `cargo xtask tidy RULE`:\n{error}");
        }
    }
    Ok(())
}

fn all_problems(workspace: &Workspace) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for package in &workspace.packages {
        let manifest = &package.manifest_path;
        problems.extend(roots::manifest_problem(&below(&workspace.root, manifest), &read(manifest)?));
    }
    let mut sources = Vec::new();
    for path in files(&workspace.root)? {
        let name = below(&workspace.root, &path);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => sources.push(Source::parse(&name, &read(&path)?)),
            Some("md") => problems.extend(words::markdown_problems(&name, &read(&path)?)),
            _ => {}
        }
    }
    for source in &sources {
        problems.extend(words::problems(source));
        problems.extend(length::problem(source));
        problems.extend(roots::problems(source));
    }
    let modules = modules::Modules::new(&sources);
    problems.extend(circles::problems(&modules));
    problems.extend(rooms::problems(&modules));
    problems.extend(identity::problems(&modules));
    let sorted: BTreeSet<Problem> = problems.into_iter().collect();
    Ok(sorted.into_iter().collect())
}

fn below(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
}

/// All files of the workspace but those that cargo and git keep.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
        let name = entry.file_name();
        if name == "target" || name.to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().with_context(|| format!("cannot stat {}", path.display()))?;
        if kind.is_dir() {
            files.extend(self::files(&path)?);
        } else if kind.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
