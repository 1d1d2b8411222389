//! Finds the paths that Rust code names, in `use` trees and elsewhere.

use super::source::first_name;

/// A path such as `crate::model::Vm`, with the byte where it is named.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedPath {
    pub at: usize,
    pub segments: Vec<String>,
    /// The name that a `use` gives it in the file; `*` for all names of a module.
    pub alias: Option<String>,
}

pub fn of(code: &str) -> Vec<NamedPath> {
    let mut paths = Vec::new();
    let mut at = 0;
    while let Some(start) = code[at..].find(|character: char| character.is_alphabetic() || character == '_') {
        at += start;
        let name = first_name(&code[at..]);
        if name == "use" {
            let end = code[at..].find(';').map_or(code.len(), |end| at + end);
            expand(&code[at + 3..end], at + 3, &[], &mut paths);
            at = end;
            continue;
        }
        let mut segments = vec![name.to_owned()];
        let begin = at;
        at += name.len();
        while let Some(rest) = code[at..].strip_prefix("::") {
            let next = first_name(rest);
            if next.is_empty() {
                break;
            }
            segments.push(next.to_owned());
            at += 2 + next.len();
        }
        if segments.len() > 1 {
            paths.push(NamedPath { at: begin, segments, alias: None });
        }
    }
    paths
}

/// The paths of a `use` tree below a prefix.
fn expand(tree: &str, at: usize, prefix: &[String], paths: &mut Vec<NamedPath>) {
    let indent = tree.len() - tree.trim_start().len();
    let (at, tree) = (at + indent, tree.trim());
    if let Some((head, group)) = tree.split_once('{') {
        let mut prefix = prefix.to_vec();
        prefix.extend(segments(head));
        for (offset, member) in members(group) {
            expand(member, at + head.len() + 1 + offset, &prefix, paths);
        }
    } else if !tree.is_empty() {
        let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias)));
        let mut all = prefix.to_vec();
        all.extend(segments(path));
        all.pop_if(|last| last == "self" && !prefix.is_empty());
        let alias = alias.map(str::trim).or(all.last().map(String::as_str)).map(str::to_owned);
        all.pop_if(|last| last == "*");
        paths.push(NamedPath { at, segments: all, alias });
    }
}

fn segments(path: &str) -> impl Iterator<Item = String> {
    path.split("::").map(str::trim).filter(|segment| !segment.is_empty()).map(str::to_owned)
}

/// The members of a `use` group, from behind its opening brace.
fn members(group: &str) -> Vec<(usize, &str)> {
    let mut members = Vec::new();
    let mut depth = 0_u32;
    let mut start = 0;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                members.push((start, &group[start..at]));
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

    #[test]
    fn use_trees_are_expanded() {
        let code = "pub use a::{self, b::{C, D as E}, f::*};\nuse super::g;\n";
        let paths = ["a=a", "a::b::C=C", "a::b::D=E", "a::f=*", "super::g=g"];
        assert_eq!(texts(code), paths);
    }

    #[test]
    fn paths_in_code_are_found() {
        let code = "fn f(x: crate::a::B) -> c::D<e::F> { super::super::g::h::<i>(x.j) }";
        assert_eq!(texts(code), ["crate::a::B", "c::D", "e::F", "super::super::g::h"]);
    }

    #[test]
    fn paths_know_where_they_stand() {
        let ats = |code: &str| of(code).iter().map(|path| path.at).collect::<Vec<_>>();
        assert_eq!(ats("use a::{\n    b,\n    c::{d},\n};\na::b()"), [13, 24, 31]);
    }

    fn texts(code: &str) -> Vec<String> {
        let text = |path: NamedPath| {
            path.segments.join("::") + &path.alias.map_or(String::new(), |alias| format!("={alias}"))
        };
        of(code).into_iter().map(text).collect()
    }
}
