//! The rules of the code's layout that no compiler knows: every crate inherits the workspace's lints, one file knows
//! where the kernel's files are, and a room imports only from the rooms to its left.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// The rooms of `vm-metrics/src`, in the order in which the data flows.
const ROOMS: &[&str] = &["sources", "readers", "manager", "exporters"];

/// What every room may import, and so may import no room itself.
const GROUND: &[&str] = &["host", "model", "net", "own_dir", "patient", "procfs"];

/// The one file of `vm-metrics/src` that spells the paths of procfs and sysfs.
const KNOWS_ROOTS: &str = "host.rs";

pub fn tidy(workspace: &Workspace) -> Result<()> {
    let mut problems = Vec::new();
    for package in &workspace.packages {
        if !inherits_lints(&read(&package.manifest_path)?) {
            problems.push(format!(
                "{}: does not inherit the workspace's lints: add `[lints]` with `workspace = true`",
                package.manifest_path.display()
            ));
        }
    }
    let source_dir = workspace.root.join("vm-metrics/src");
    for file in rust_files(&source_dir)? {
        let text = read(&file)?;
        let name = file.strip_prefix(&source_dir)?.to_string_lossy();
        for (line, problem) in layout_problems(&name, &text) {
            problems.push(format!("{}:{line}: {problem}", file.display()));
        }
    }
    if !problems.is_empty() {
        bail!("{} problems:\n{}", problems.len(), problems.join("\n"));
    }
    Ok(())
}

fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim);
    lines.any(|line| line == "[lints]") && lines.next() == Some("workspace = true")
}

/// Line numbers and what is wrong there, for a file named by its path below `vm-metrics/src`.
fn layout_problems(name: &str, text: &str) -> Vec<(usize, String)> {
    if name.split(['/', '.']).any(|part| part == "tests") {
        return Vec::new();
    }
    let code = without_comments_and_tests(text);
    let mut problems = Vec::new();
    if name != KNOWS_ROOTS {
        for (at, root) in spelled_roots(&code) {
            problems.push((at, format!("spells \"{root}\": only {KNOWS_ROOTS} does, use `Host`")));
        }
    }
    let room = name.split(['/', '.']).next().unwrap_or(name);
    let forbidden: &[&str] = match ROOMS.iter().position(|known| *known == room) {
        Some(place) => &ROOMS[place + 1..],
        None if GROUND.contains(&room) => ROOMS,
        None => &[],
    };
    for (at, imported) in crate_imports(&code) {
        if forbidden.contains(&imported) {
            problems.push((at, format!("`{room}` imports from `{imported}`, a room to its right")));
        }
    }
    problems.sort();
    problems
}

/// The code that ends up in the daemon, with its line numbers kept. Tests are last in a file.
fn without_comments_and_tests(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let lines = code.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

/// String literals that begin with a root, as a whole path component.
fn spelled_roots(code: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for root in ["/proc", "/sys"] {
        for (at, quoted) in code.match_indices(&format!("\"{root}")) {
            let next = code[at + quoted.len()..].chars().next();
            if !next.is_some_and(|next| next.is_alphanumeric() || next == '_' || next == '-') {
                found.push((line_at(code, at), root));
            }
        }
    }
    found
}

/// The modules at the top of the crate that the code names, in paths and in `use` groups.
fn crate_imports(code: &str) -> Vec<(usize, &str)> {
    let mut imports = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        let start = at + prefix.len();
        match code[start..].strip_prefix('{') {
            Some(group) => imports.extend(
                group_members(group)
                    .into_iter()
                    .map(|(offset, name)| (line_at(code, start + 1 + offset), name)),
            ),
            None => imports.push((line_at(code, at), first_name(&code[start..]))),
        }
    }
    imports
}

/// First names of the members of a `use` group, from behind its opening brace.
fn group_members(group: &str) -> Vec<(usize, &str)> {
    let mut members = Vec::new();
    let mut depth = 0_u32;
    let mut start = 0;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                let member = &group[start..at];
                let indent = member.len() - member.trim_start().len();
                members.push((start + indent, first_name(member.trim_start())));
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    members
}

fn first_name(path: &str) -> &str {
    let end = path.find(|character: char| !character.is_alphanumeric() && character != '_');
    &path[..end.unwrap_or(path.len())]
}

fn line_at(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [usize; 0] = [];

    #[test]
    fn lints_are_inherited_only_by_the_exact_table() {
        assert!(inherits_lints("[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"));
        assert!(!inherits_lints("[package]\nlicense.workspace = true\n"));
        assert!(!inherits_lints("[lints]\n\n[dependencies]\n"));
    }

    #[test]
    fn only_one_file_spells_the_roots() {
        let code = "let a = \"/proc/self\";\nlet b = format!(\"/sys/{x}\");\n";
        assert_eq!(lines("readers/x.rs", code), [1, 2]);
        assert_eq!(lines("main.rs", code), [1, 2]);
        assert_eq!(lines("host.rs", code), NONE);
    }

    #[test]
    fn words_comments_and_tests_are_not_roots() {
        let code = "//! \"/proc\"\n/// \"/sys\"\nlet a = \"/processes\";\n#[cfg(test)]\nlet b = \"/proc\";\n";
        assert_eq!(lines("readers/x.rs", code), NONE);
        assert_eq!(lines("sources/tests.rs", "let a = \"/proc\";"), NONE);
        assert_eq!(lines("sources/scan/tests/state.rs", "let a = \"/proc\";"), NONE);
    }

    #[test]
    fn rooms_import_from_their_left() {
        let code = "use crate::sources::A;\nuse crate::{\n    model::{B, C},\n    manager::D,\n};\nfn f(x: crate::exporters::E) {}\n";
        assert_eq!(lines("sources/mod.rs", code), [4, 6]);
        assert_eq!(lines("readers/mod.rs", code), [4, 6]);
        assert_eq!(lines("manager/mod.rs", code), [6]);
        assert_eq!(lines("exporters/prometheus.rs", code), NONE);
        assert_eq!(lines("model/vm.rs", code), [1, 4, 6]);
        assert_eq!(lines("procfs.rs", code), [1, 4, 6]);
        assert_eq!(lines("app.rs", code), NONE);
    }

    fn lines(name: &str, text: &str) -> Vec<usize> {
        layout_problems(name, text).into_iter().map(|(line, _)| line).collect()
    }
}
