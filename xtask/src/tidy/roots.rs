//! Refuses spelled roots of procfs and sysfs, and crates without the workspace's lints.

use super::problem::Problem;
use super::source::{Source, line_at};

const CRATE: &str = "vm-metrics/src/";

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
        for (line, root) in spelled_roots(&source.shipped_strings) {
            let text = format!("spells \"{root}\": only {KNOWS_ROOTS} does, use `Host`");
            problems.push(Problem::new(&source.path, line, "roots", text));
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

    fn lines(name: &str, text: &str) -> Vec<usize> {
        let mut problems = problems(&Source::parse(&format!("{CRATE}{name}"), text));
        problems.sort();
        problems.iter().map(|problem| problem.line).collect()
    }
}
