//! Refuses files that import each other.

use std::collections::{BTreeMap, BTreeSet};

use super::modules::Modules;
use super::problem::Problem;
use super::source::line_at;

type Edges = BTreeMap<String, BTreeSet<String>>;

pub fn problems(modules: &Modules<'_>) -> Vec<Problem> {
    let mut edges = Edges::new();
    let mut lines = BTreeMap::new();
    for module in modules.0.values() {
        for path in &module.paths {
            let Some(owner) = modules.owner(module, &path.segments) else { continue };
            if owner.name != module.name && !is_ancestor(&owner.name, &module.name) {
                edges.entry(module.name.clone()).or_default().insert(owner.name.clone());
                let line = line_at(&module.source.shipped, path.at);
                lines.entry((module.name.clone(), owner.name.clone())).or_insert(line);
            }
        }
    }
    let mut problems = Vec::new();
    for circle in circles(&edges) {
        for from in &circle {
            for to in circle.intersection(&edges[from]) {
                let line = lines[&(from.clone(), to.clone())];
                let text = format!("imports `{to}`, which comes back to this file ({} files)", circle.len());
                problems.push(Problem::new(&modules.0[from].source.path, line, "circle", text));
            }
        }
    }
    problems
}

/// The strongly connected components of more than one file.
fn circles(edges: &Edges) -> Vec<BTreeSet<String>> {
    let reach: BTreeMap<&String, BTreeSet<&String>> =
        edges.keys().map(|from| (from, reachable(edges, from))).collect();
    let mut circles = BTreeSet::new();
    for (from, reached) in &reach {
        let back = |to: &&&String| reach.get(**to).is_some_and(|reached| reached.contains(from));
        let circle: BTreeSet<String> = reached.iter().filter(back).map(|to| (*to).clone()).collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

fn reachable<'a>(edges: &'a Edges, from: &String) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&String> = edges.get(from).into_iter().flatten().collect();
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(edges.get(next).into_iter().flatten());
        }
    }
    reached
}

/// A module may use what the modules that it is in have for it.
fn is_ancestor(name: &str, of: &str) -> bool {
    name.is_empty() || of.strip_prefix(name).is_some_and(|rest| rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> =
            files.iter().map(|(name, code)| Source::parse(&format!("vm-metrics/src/{name}"), code)).collect();
        let problems = problems(&Modules::new(&sources));
        let place = |problem: &Problem| problem.path.trim_start_matches("vm-metrics/src/").to_owned();
        problems.iter().map(place).collect()
    }

    #[test]
    fn files_that_import_each_other_are_found() {
        let files = [
            ("a.rs", "pub struct A;\nuse crate::b::B;\n"),
            ("b.rs", "pub struct B;\nfn f() { crate::c::C }\n"),
            ("c.rs", "pub struct C;\nuse super::a::A;\n"),
            ("d.rs", "use crate::a::A;\n"),
        ];
        assert_eq!(found(&files), ["a.rs", "b.rs", "c.rs"]);
        assert_eq!(found(&[files[0], files[1], files[3]]), Vec::<String>::new());
    }

    #[test]
    fn a_module_may_use_those_above_it() {
        let files =
            [("a/mod.rs", "use b::B;\npub struct A;\n"), ("a/b.rs", "pub struct B;\nuse super::A;\n")];
        assert_eq!(found(&files), Vec::<String>::new());
    }

    #[test]
    fn re_exports_hide_no_circle() {
        let files = [
            ("a/mod.rs", "pub use b::B;\npub use c::C;\n"),
            ("a/b.rs", "pub struct B;\nuse super::C;\n"),
            ("a/c.rs", "pub struct C;\nuse super::B;\n"),
        ];
        assert_eq!(found(&files), ["a/b.rs", "a/c.rs"]);
    }
}
