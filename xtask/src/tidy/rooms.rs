//! Refuses imports between rooms that the table of edges does not have.

use std::collections::{BTreeMap, BTreeSet};

use super::modules::{Module, Modules};
use super::problem::Problem;
use super::source::{first_name, line_at};

/// Each top-level module of `vm-metrics/src`, and the rooms that it may import: rooms above it in this table.
#[rustfmt::skip]
const ROOMS: &[(&str, &[&str])] = &[
    // The ground: vocabulary, and how this host is read.
    ("model", &[]),
    ("own_dir", &[]),
    ("signals", &[]),
    ("procfs", &["model"]),
    ("patient", &["model"]),
    ("host", &["procfs"]),
    ("net", &["host", "model", "patient"]),
    ("config", &["host", "model"]),
    ("documents", &["model"]),
    ("terminal", &["model"]),
    // The flow: who exists, what it uses, what goes on, who looks.
    ("sources", &["config", "host", "model", "net", "own_dir", "patient", "procfs"]),
    ("readers", &["config", "host", "model", "net", "own_dir", "patient", "procfs"]),
    ("manager", &["config", "host", "model", "net", "own_dir", "readers", "sources"]),
    ("exporters", &["config", "documents", "manager", "model"]),
    // The daemon and its commands.
    ("log", &["config", "model", "terminal"]),
    ("version", &["readers"]),
    ("limits", &["host", "readers"]),
    ("http", &["config", "exporters", "host", "manager", "model", "own_dir", "sources"]),
    ("local_daemon", &["config", "documents", "http"]),
    ("app", &["config", "exporters", "host", "http", "limits", "manager", "model", "net", "readers", "signals",
        "sources"]),
    ("snapshot", &["app", "config", "documents", "exporters", "local_daemon", "manager", "model", "readers",
        "terminal"]),
    ("doctor", &["app", "config", "documents", "host", "http", "local_daemon", "model", "readers", "snapshot",
        "terminal"]),
    ("cli", &["app", "config", "doctor", "log", "model", "readers", "snapshot", "terminal", "version"]),
    ("main", &["cli", "config"]),
    ("lib", &["config", "exporters", "manager", "model", "net", "procfs", "readers", "sources"]),
];

/// Blocks `impl Type` outside of the type's room: room and type.
const EXTENSIONS: &[(&str, &str)] = &[
    // `Manager::initialize_otel`: a program calls it on its manager, which knows no exporter.
    ("exporters", "Manager"),
];

pub fn problems(modules: &Modules<'_>) -> Vec<Problem> {
    problems_with(ROOMS, modules)
}

fn problems_with(rooms: &[(&str, &[&str])], modules: &Modules<'_>) -> Vec<Problem> {
    let allowed: BTreeMap<&str, &[&str]> = rooms.iter().copied().collect();
    let mut unused: BTreeSet<(&str, &str)> =
        rooms.iter().flat_map(|(room, edges)| edges.iter().map(|edge| (*room, *edge))).collect();
    let mut problems = Vec::new();
    let owners = types(modules);
    for module in modules.0.values() {
        let (path, room) = (&module.source.path, module.room());
        let Some(edges) = allowed.get(room) else {
            problems.push(Problem::new(path, 1, "rooms", format!("`{room}` is not in the table of rooms")));
            continue;
        };
        for (at, imported) in imports(modules, module) {
            unused.remove(&(room, imported));
            if !edges.contains(&imported) {
                let text =
                    format!("`{room}` imports from `{imported}`, which the table of rooms does not allow");
                problems.push(Problem::new(path, line_at(&module.source.shipped, at), "rooms", text));
            }
        }
        for (line, name) in inherent_impls(&module.source.shipped) {
            let owned = owners.get(name).is_some_and(|owners| owners.contains(room));
            if !owned && !EXTENSIONS.contains(&(room, name)) {
                let text = format!("`impl {name}` outside of the room that defines `{name}`");
                problems.push(Problem::new(path, line, "impl", text));
            }
        }
    }
    for (room, edge) in unused {
        let text = format!("`{room}` does not import from `{edge}` any more: take it out of the table");
        problems.push(Problem::new("xtask/src/tidy/rooms.rs", 1, "rooms", text));
    }
    problems
}

/// Rooms of the paths that leave the module's own room, with the byte where each stands.
fn imports<'m>(modules: &'m Modules<'_>, module: &'m Module<'_>) -> Vec<(usize, &'m str)> {
    let mut imports = Vec::new();
    for path in &module.paths {
        let reached = match modules.walk(module, &path.segments) {
            // A name that the crate's root re-exports.
            Some((reached, rest)) if reached.name.is_empty() && !rest.is_empty() => {
                modules.owner(module, &path.segments)
            }
            reached => reached.map(|(reached, _)| reached),
        };
        if let Some(reached) = reached.filter(|reached| reached.room() != module.room()) {
            imports.push((path.at, reached.room()));
        }
    }
    imports
}

/// The rooms that define a type of this name.
fn types<'m>(modules: &'m Modules<'_>) -> BTreeMap<&'m str, BTreeSet<&'m str>> {
    let mut types: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for module in modules.0.values() {
        for (_, _, name) in module.source.types() {
            types.entry(name).or_default().insert(module.room());
        }
    }
    types
}

/// Lines and types of `impl Type` blocks, not of traits.
fn inherent_impls(code: &str) -> Vec<(usize, &str)> {
    let mut impls = Vec::new();
    for (at, _) in code.match_indices("impl").filter(|(at, _)| *at == 0 || code[..*at].ends_with('\n')) {
        let header = code[at + 4..].split('{').next().unwrap_or_default();
        if !header.starts_with([' ', '<']) || header.split_whitespace().any(|word| word == "for") {
            continue;
        }
        let path = behind_generics(header).trim_start().split('<').next().unwrap_or_default();
        impls.push((line_at(code, at), first_name(path.rsplit("::").next().unwrap_or_default())));
    }
    impls
}

fn behind_generics(header: &str) -> &str {
    let mut depth = 0_u32;
    for (at, character) in header.char_indices() {
        match character {
            '<' => depth += 1,
            // An arrow `->` closes nothing.
            '>' if !header[..at].ends_with('-') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return if character == '>' { &header[at + 1..] } else { header };
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;

    const TABLE: &[(&str, &[&str])] =
        &[("lib", &[]), ("model", &[]), ("readers", &["model"]), ("app", &["model", "readers"])];

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> =
            files.iter().map(|(name, code)| Source::parse(&format!("vm-metrics/src/{name}"), code)).collect();
        let problems = problems_with(TABLE, &Modules::new(&sources));
        let places = problems.iter().filter(|problem| problem.path.starts_with("vm-metrics"));
        places
            .map(|problem| format!("{}:{}", problem.path.trim_start_matches("vm-metrics/src/"), problem.line))
            .collect()
    }

    #[test]
    fn only_edges_of_the_table_are_allowed() {
        let readers =
            ("readers/mod.rs", "use crate::{\n    model::A,\n    app::B,\n};\nfn f() { crate::app::g() }\n");
        let files = [("model.rs", ""), readers, ("app.rs", "use super::readers;\n")];
        assert_eq!(found(&files), ["readers/mod.rs:3", "readers/mod.rs:5"]);
    }

    #[test]
    fn paths_that_climb_out_are_seen() {
        let readers =
            ("readers/tap/x.rs", "fn f() {\n    super::super::super::app::g();\n    super::h();\n}\n");
        let files =
            [("lib.rs", ""), ("readers/mod.rs", ""), ("readers/tap/mod.rs", ""), readers, ("app.rs", "")];
        assert_eq!(found(&files), ["readers/tap/x.rs:2"]);
    }

    #[test]
    fn re_exports_of_the_root_are_seen() {
        let files = [
            ("model.rs", "use crate::R;\nuse crate::M;\n"),
            ("readers/mod.rs", "pub struct R;\n"),
            ("lib.rs", "pub use readers::R;\npub use model::M;\n"),
        ];
        assert_eq!(found(&files), ["lib.rs:1", "lib.rs:2", "model.rs:1"]);
    }

    #[test]
    fn unknown_rooms_and_unused_edges_are_problems() {
        assert_eq!(found(&[("attic.rs", "")]), ["attic.rs:1"]);
        let parse = |name: &str, code: &str| Source::parse(&format!("vm-metrics/src/{name}"), code);
        let sources =
            [parse("model.rs", ""), parse("readers.rs", "use crate::model::A;"), parse("lib.rs", "")];
        let unused = problems_with(TABLE, &Modules::new(&sources));
        let of_app = unused.iter().filter(|problem| problem.text.starts_with("`app` does not import"));
        assert_eq!((unused.len(), of_app.count()), (2, 2), "{unused:?}");
    }

    #[test]
    fn types_are_implemented_in_their_room() {
        let code = "impl M {}\nimpl<T: Fn(u8) -> u8> super::super::model::M<T> where T: X {}\nimpl Default for M {}\nimpl R {}\n";
        let readers = ("readers/mod.rs", "pub struct R;\n");
        let files = [("lib.rs", ""), ("model.rs", "pub struct M;\n"), readers, ("readers/r.rs", code)];
        assert_eq!(found(&files), ["readers/r.rs:1", "readers/r.rs:2"]);
    }

    #[test]
    fn rooms_import_only_rooms_above_them() {
        for (place, (room, edges)) in ROOMS.iter().enumerate() {
            for edge in *edges {
                assert!(ROOMS[..place].iter().any(|(above, _)| above == edge), "{room} imports {edge}");
            }
        }
    }
}
