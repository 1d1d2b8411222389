//! Refuses comparisons of ifindexes and namespaces outside of the room `net`.

use super::modules::Modules;
use super::problem::Problem;
use super::source::line_at;

/// The room that answers whether a device is still the same.
const OWNER: &str = "net";

/// Names of values that identify a device or its namespace.
const IDENTITIES: &[&str] = &["ifindex", "netns", "own_netns", "namespace", "cookie", "ino"];

pub fn problems(modules: &Modules<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for module in modules.0.values().filter(|module| module.room() != OWNER) {
        let code = &module.source.shipped;
        for (at, name) in comparisons(code) {
            let text = format!("compares `{name}`: only `{OWNER}` knows whether a device is the same");
            problems.push(Problem::new(&module.source.path, line_at(code, at), "device-identity", text));
        }
    }
    problems
}

/// Comparisons of two values of which one is an identity. One with a number asks only whether it is known.
fn comparisons(code: &str) -> Vec<(usize, &str)> {
    let operators = code.match_indices("==").chain(code.match_indices("!="));
    let mut found: Vec<(usize, &str)> = operators
        .filter_map(|(at, operator)| {
            let names = [name_before(&code[..at]), name_behind(&code[at + operator.len()..])];
            let is_number = |name: &&str| name.starts_with(|first: char| first.is_ascii_digit());
            if names.iter().any(is_number) {
                return None;
            }
            names.into_iter().find(|name| IDENTITIES.contains(name)).map(|name| (at, name))
        })
        .collect();
    found.sort_unstable();
    found
}

/// The last name of the expression that ends here: `ino` of `file.ino()`.
fn name_before(code: &str) -> &str {
    let expression = code.trim_end().trim_end_matches("()");
    let start = expression.rfind(|character: char| !is_of_name(character)).map_or(0, |at| at + 1);
    &expression[start..]
}

/// The last name of the path that begins here: `netns` of `&nic.netns`.
fn name_behind(code: &str) -> &str {
    let expression = code.trim_start().trim_start_matches(['*', '&']);
    let end = expression.find(|character: char| !is_of_name(character) && character != '.');
    let path = &expression[..end.unwrap_or(expression.len())];
    path.rsplit('.').next().unwrap_or(path)
}

fn is_of_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;

    fn found(file: &str, code: &str) -> Vec<usize> {
        let sources = [Source::parse(&format!("vm-metrics/src/{file}"), code)];
        problems(&Modules::new(&sources)).iter().map(|problem| problem.line).collect()
    }

    #[test]
    fn identities_are_compared_only_in_net() {
        let code = "a.ifindex == b\nc != *nic.netns\nfile.ino() == d\nok(ifindex)\n// ifindex == e\n";
        assert_eq!(found("readers/x.rs", code), [1, 2, 3]);
        assert_eq!(found("net/x.rs", code), Vec::<usize>::new());
    }

    #[test]
    fn a_comparison_with_a_number_is_allowed() {
        assert_eq!(found("readers/x.rs", "ifindex != 0\n0 == nic.ifindex\n"), Vec::<usize>::new());
    }
}
