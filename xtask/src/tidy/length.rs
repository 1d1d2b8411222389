//! Refuses files over 300 lines that state no reason.

use super::problem::Problem;
use super::source::Source;

const LINES: usize = 300;
const REASON: &str = "// Long because: ";

/// How far from the head of a file the reason may stand.
const HEAD: usize = 30;

pub fn problem(source: &Source) -> Option<Problem> {
    let lines = source.text.lines().count();
    let reason = |line: &str| line.strip_prefix(REASON).is_some_and(|reason| !reason.trim().is_empty());
    if lines <= LINES || source.text.lines().take(HEAD).any(reason) {
        return None;
    }
    let text = format!("{lines} lines: at most {LINES}, or a line `{REASON}…` near the head");
    Some(Problem::new(&source.path, LINES + 1, "length", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_state_a_reason() {
        let of = |head: &str, lines: usize| {
            problem(&Source::parse("a.rs", &format!("{head}{}", "x\n".repeat(lines)))).is_some()
        };
        assert!(!of("", 300));
        assert!(of("", 301));
        assert!(!of("//! A.\n// Long because: one table.\n", 301));
        assert!(of("// Long because: \n", 301));
        assert!(of(&("x\n".repeat(30) + "// Long because: too late.\n"), 301));
    }
}
