//! The keys that there are, with an example of each, as `default.toml` has them.

use std::sync::LazyLock;

use super::DEFAULT;

/// A key and how it may be written.
#[derive(Debug)]
pub(crate) struct Key {
    /// With the section: `readers.tap_ebpf.pin`.
    pub(crate) path: String,
    /// A line such as `pin = true`.
    pub(crate) example: String,
}

/// All keys of all sections.
pub(crate) fn known() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| keys_of(DEFAULT));
    &KEYS
}

pub(super) fn is_known(path: &str) -> bool {
    known().iter().any(|key| key.path == path)
}

/// How a key is written.
pub(super) fn example(path: &str) -> Option<&'static str> {
    known().iter().find(|key| key.path == path).map(|key| key.example.as_str())
}

/// The names of sections, such as `readers.tap_ebpf`.
pub(super) fn sections() -> impl Iterator<Item = &'static str> {
    DEFAULT.lines().filter_map(|line| line.strip_prefix('[')?.strip_suffix(']'))
}

/// The name that somebody may have meant; `None` when none is near.
pub(crate) fn suggestion<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let near = known.map(|known| (strsim::osa_distance(name, known), known));
    let (distance, known) = near.min()?;
    (distance <= (name.chars().count() / 3).max(1)).then_some(known)
}

/// Keys that are switched off begin with `# `; those of a `[[table]]` belong to the elements of one key.
fn keys_of(text: &str) -> Vec<Key> {
    let (mut keys, mut section, mut is_element) = (Vec::new(), "", false);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            (section, is_element) = (name, false);
            continue;
        }
        let typed = line.strip_prefix("# ").unwrap_or(line);
        if let Some(name) = typed.strip_prefix("[[").and_then(|rest| rest.strip_suffix("]]")) {
            keys.push(Key { path: name.to_owned(), example: typed.to_owned() });
            is_element = true;
            continue;
        }
        let Some((name, _)) = typed.split_once(" = ") else { continue };
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if is_name && !is_element {
            let path = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
            keys.push(Key { path, example: typed.to_owned() });
        }
    }
    keys
}
