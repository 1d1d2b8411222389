//! Refuses spelled roots, imports against the flow, and crates without the workspace's lints.

use super::problem::Problem;
use super::source::{Source, first_name, line_at};

const CRATE: &str = "vm-metrics/src/";

/// The rooms of `vm-metrics/src`, in the order in which the data flows.
const ROOMS: &[&str] = &["sources", "readers", "manager", "exporters"];

/// What every room may import, and so may import no room itself.
const GROUND: &[&str] = &["host", "model", "netns", "own_dir", "patient", "procfs"];

/// The one file of `vm-metrics/src` that spells the paths of procfs and sysfs.
const KNOWS_ROOTS: &str = "host.rs";

pub fn manifest_problem(path: &str, manifest: &str) -> Option<Problem> {
    let mut lines = manifest.lines().map(str::trim);
    let inherits = lines.any(|line| line == "[lints]") && lines.next() == Some("workspace = true");
    let text = "does not inherit the workspace's lints: add `[lints]` with `workspace = true`";
    (!inherits).then(|| Problem::new(path, 1, "lints", text))
}

/// What is wrong with a file of `vm-metrics/src`; other files have no rooms.
pub fn problems(source: &Source) -> Vec<Problem> {
    let Some(name) = source.path.strip_prefix(CRATE) else { return Vec::new() };
    if source.is_test() {
        return Vec::new();
    }
    let mut problems = Vec::new();
    if name != KNOWS_ROOTS {
        for (line, root) in spelled_roots(&source.literal[..source.end_of_code()]) {
            let text = format!("spells \"{root}\": only {KNOWS_ROOTS} does, use `Host`");
            problems.push(Problem::new(&source.path, line, "roots", text));
        }
    }
    let room = name.split(['/', '.']).next().unwrap_or(name);
    let forbidden: &[&str] = match ROOMS.iter().position(|known| *known == room) {
        Some(place) => &ROOMS[place + 1..],
        None if GROUND.contains(&room) => ROOMS,
        None => &[],
    };
    for (line, imported) in crate_imports(&source.code[..source.end_of_code()]) {
        if forbidden.contains(&imported) {
            let text = format!("`{room}` imports from `{imported}`, a room to its right");
            problems.push(Problem::new(&source.path, line, "rooms", text));
        }
    }
    problems
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

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [usize; 0] = [];

    #[test]
    fn lints_are_inherited_only_by_the_exact_table() {
        let refused = |manifest: &str| manifest_problem("Cargo.toml", manifest).is_some();
        assert!(!refused("[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"));
        assert!(refused("[package]\nlicense.workspace = true\n"));
        assert!(refused("[lints]\n\n[dependencies]\n"));
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
        let mut problems = problems(&Source::parse(&format!("{CRATE}{name}"), text));
        problems.sort();
        problems.iter().map(|problem| problem.line).collect()
    }
}
