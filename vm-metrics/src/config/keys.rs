//! All keys of `default.toml`, with an example of each.

use std::sync::LazyLock;

use super::DEFAULT;

/// A key with an example.
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

/// The most similar name; `None` if no name is similar.
pub(crate) fn suggestion<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let near = known.map(|known| (strsim::osa_distance(name, known), known));
    let (distance, known) = near.min()?;
    (distance <= (name.chars().count() / 3).max(1)).then_some(known)
}

/// Keys in comments begin with `# `. Keys of a `[[table]]` belong to the elements of one key.
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::app::App;
    use crate::config::Config;

    /// The keys that the error of an unknown key lists for a section.
    fn keys_in(section: &str) -> Vec<String> {
        let text =
            if section.is_empty() { "no_such = 1".to_owned() } else { format!("[{section}]\nno_such = 1") };
        let error = Config::parse(Path::new("test.toml"), &text).and_then(App::new).unwrap_err().to_string();
        let known = error.split_once("; there are ").map_or("", |(_, known)| known);
        known
            .split(", ")
            .filter(|name| !name.is_empty() && *name != "no keys here")
            .map(str::to_owned)
            .collect()
    }

    /// Else a variable for it would stand for no key, and a mistake in it would have no example.
    #[test]
    fn default_toml_has_each_key() {
        let mut keys = 0;
        for section in sections().chain([""]) {
            for name in keys_in(section) {
                let is_section = sections().any(|section| section == name);
                let path = if section.is_empty() { name } else { format!("{section}.{name}") };
                assert!(is_section || is_known(&path), "{path} is not in default.toml");
                keys += 1;
            }
        }
        assert!(keys > 40, "{keys}");
        assert_eq!(example("readers.tap_ebpf.pin"), Some("pin = true"));
        assert_eq!(example("sources.static_list.vms"), Some("[[sources.static_list.vms]]"));
    }

    #[test]
    fn a_name_that_is_near_is_proposed() {
        let known = ["interval", "listen", "retention"];
        assert_eq!(suggestion("intervall", known.into_iter()), Some("interval"));
        assert_eq!(suggestion("lisen", known.into_iter()), Some("listen"));
        assert_eq!(suggestion("colour", known.into_iter()), None);
    }
}
