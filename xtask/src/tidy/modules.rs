//! The modules of `vm-metrics/src`, and which file owns the thing that a path names.

use std::collections::{BTreeMap, BTreeSet};

use super::paths::{self, NamedPath};
use super::source::{Source, first_name};

const CRATE: &str = "vm-metrics/src/";

/// A chain of re-exports is shorter than this.
const MAX_STEPS: usize = 8;

/// One file of the daemon's code.
#[derive(Debug)]
pub struct Module<'a> {
    pub source: &'a Source,
    /// Of the module: `readers::tap`; empty for the root.
    pub name: String,
    pub paths: Vec<NamedPath>,
    items: BTreeSet<&'a str>,
}

/// Modules by name.
#[derive(Debug)]
pub struct Modules<'a>(pub BTreeMap<String, Module<'a>>);

impl Module<'_> {
    /// The module at the top of the crate that this one is in.
    pub fn room(&self) -> &str {
        if self.name.is_empty() { "lib" } else { first_name(&self.name) }
    }
}

impl<'a> Modules<'a> {
    /// Files for tests only are left out.
    pub fn new(sources: &'a [Source]) -> Self {
        let modules = sources.iter().filter(|source| !source.is_test()).filter_map(|source| {
            let name = module_name(source.path.strip_prefix(CRATE)?);
            let (paths, items) = (paths::of(&source.shipped), items(&source.shipped));
            Some((name.clone(), Module { source, name, paths, items }))
        });
        Self(modules.collect())
    }

    /// The module that a path reaches, and the names behind it. `None` for other crates.
    pub fn walk<'p>(&self, from: &Module<'_>, path: &'p [String]) -> Option<(&Module<'a>, &'p [String])> {
        let (first, mut rest) = path.split_first()?;
        let mut name = match first.as_str() {
            "crate" | "vm_metrics" => String::new(),
            "self" => from.name.clone(),
            "super" => parent(&from.name)?.to_owned(),
            child => join(&from.name, child),
        };
        while let Some((next, behind)) = rest.split_first() {
            let below = if next == "super" { parent(&name)?.to_owned() } else { join(&name, next) };
            if !self.0.contains_key(&below) {
                break;
            }
            (name, rest) = (below, behind);
        }
        Some((self.0.get(&name)?, rest))
    }

    /// The module whose file defines the thing that a path names, through all re-exports.
    pub fn owner(&self, from: &Module<'_>, path: &[String]) -> Option<&Module<'a>> {
        self.owner_in(from, path, MAX_STEPS)
    }

    fn owner_in(&self, from: &Module<'_>, path: &[String], steps: usize) -> Option<&Module<'a>> {
        let steps = steps.checked_sub(1)?;
        let (module, name, rest) = match self.walk(from, path) {
            // The module itself: those of its names that are used have paths of their own.
            Some((_, [])) => return None,
            Some((module, [name, rest @ ..])) => (module, name, rest),
            // A name that this file has from elsewhere.
            None => (self.0.get(&from.name)?, path.first()?, &path[1..]),
        };
        if module.items.contains(name.as_str()) {
            return Some(module);
        }
        let uses = module.paths.iter().filter(|path| path.alias.is_some());
        let named = uses.clone().find(|path| path.alias.as_deref() == Some(name));
        if let Some(import) = named {
            let whole: Vec<String> = import.segments.iter().chain(rest).cloned().collect();
            // A `use` of its own first name is another crate's.
            return if whole == path { None } else { self.owner_in(module, &whole, steps) };
        }
        uses.filter(|path| path.alias.as_deref() == Some("*")).find_map(|glob| {
            let (globbed, rest) = self.walk(module, &glob.segments)?;
            (rest.is_empty() && globbed.items.contains(name.as_str())).then_some(globbed)
        })
    }
}

fn module_name(file: &str) -> String {
    let name = file.trim_end_matches(".rs").trim_end_matches("/mod");
    if name == "lib" { String::new() } else { name.replace('/', "::") }
}

fn parent(name: &str) -> Option<&str> {
    match name.rsplit_once("::") {
        Some((parent, _)) => Some(parent),
        None => (!name.is_empty()).then_some(""),
    }
}

fn join(name: &str, child: &str) -> String {
    if name.is_empty() { child.to_owned() } else { format!("{name}::{child}") }
}

const KINDS: &[&str] = &["fn", "struct", "enum", "union", "trait", "type", "const", "static", "macro_rules!"];

/// Names of the items that begin in the first column.
fn items(code: &str) -> BTreeSet<&str> {
    code.lines().filter(|line| !line.starts_with([' ', '}', '#', '/'])).filter_map(item).collect()
}

fn item(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| !KINDS.contains(word));
    let kind = words.next()?;
    let name = words.find(|word| kind != "const" || *word != "fn")?;
    Some(first_name(name)).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(files: &[(&str, &str)], from: &str, path: &str) -> Option<String> {
        let sources: Vec<Source> =
            files.iter().map(|(name, code)| Source::parse(&format!("{CRATE}{name}"), code)).collect();
        let modules = Modules::new(&sources);
        let path: Vec<String> = path.split("::").map(str::to_owned).collect();
        modules.owner(&modules.0[from], &path).map(|module| module.name.clone())
    }

    const FILES: &[(&str, &str)] = &[
        ("lib.rs", "mod a;\nmod d;\npub use a::b::B;\n"),
        ("a/mod.rs", "mod b;\nmod c;\npub use b::B;\npub use self::c::*;\npub struct A;\n"),
        ("a/b.rs", "use super::A;\npub(crate) struct B;\npub const fn f() {}\n"),
        ("a/c.rs", "pub trait C {}\n"),
        ("d.rs", "use crate::a::{self, b};\nuse std::fmt;\n"),
        ("a/tests.rs", "pub struct B;\n"),
    ];

    #[test]
    fn owners_are_found_through_re_exports() {
        let owner = |from, path| owner(FILES, from, path).unwrap();
        assert_eq!(owner("d", "crate::B"), "a::b");
        assert_eq!(owner("d", "crate::a::B"), "a::b");
        assert_eq!(owner("d", "crate::a::C"), "a::c");
        assert_eq!(owner("a::b", "super::A"), "a");
        assert_eq!(owner("a::c", "super::b::B"), "a::b");
    }

    #[test]
    fn names_of_modules_lead_on() {
        let owner = |from, path| owner(FILES, from, path).unwrap();
        assert_eq!(owner("d", "a::A"), "a");
        assert_eq!(owner("d", "b::f"), "a::b");
        assert_eq!(owner("a", "c::C"), "a::c");
    }

    #[test]
    fn other_crates_have_no_owner() {
        assert_eq!(owner(FILES, "d", "std::fmt"), None);
        assert_eq!(owner(FILES, "d", "fmt::Debug"), None);
        // A module alone is no edge: what is used of it has a path of its own.
        assert_eq!(owner(FILES, "d", "crate::a::b"), None);
    }
}
