//! Finds the key of a refused line, and keeps its value out of the error.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::keys;

/// The dotted name of the key at a place in the text; empty if there is none.
pub(super) fn key_at(text: &str, place: &Range<usize>) -> String {
    match DeTable::parse(text) {
        Ok(table) if !place.is_empty() => find(table.get_ref(), place.start).unwrap_or_default(),
        // In a text that is not TOML, keys cannot be distinguished from values.
        _ => String::new(),
    }
}

fn find(table: &DeTable<'_>, at: usize) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let name = key.get_ref();
        let inner = match value.get_ref() {
            DeValue::Table(table) => find(table, at),
            DeValue::Array(elements) => elements.iter().find_map(|element| match element.get_ref() {
                DeValue::Table(table) => find(table, at),
                _ => None,
            }),
            _ => None,
        };
        let is_here = key.span().contains(&at) || value.span().contains(&at);
        inner.map(|inner| format!("{name}.{inner}")).or_else(|| is_here.then(|| name.to_string()))
    })
}

/// A message of serde or of ours in plain words, with an example of the key.
pub(super) fn explain(message: &str, key: &str) -> String {
    let message = in_words(&without_value(message.trim())).replace('\n', " ");
    if let Some((before, unknown)) = message.split_once("unknown field `") {
        let (name, rest) = unknown.split_once('`').unwrap_or((unknown, ""));
        return format!("{before}unknown key `{name}`{}", instead_of(name, rest));
    }
    // The head of a table helps only if a table is missing.
    let shows = |example: &&str| !example.starts_with("[[") || message.contains("must be ");
    match keys::example(key).filter(|example| !message.contains(example)).filter(shows) {
        Some(example) => format!("{message}; for example {example}"),
        None => message,
    }
}

/// The most similar key, or all keys. `rest` is `, expected one of …` of serde.
fn instead_of(name: &str, rest: &str) -> String {
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    // Top-level keys have no section.
    let is_top = known.contains(&"metric_prefix");
    let tables = ["sources", "readers", "exporters"];
    let below = keys::sections().find(|section| is_top && section.rsplit('.').next() == Some(name));
    let near = keys::suggestion(name, known.iter().copied().chain(tables.into_iter().filter(|_| is_top)));
    match (below, near) {
        (Some(section), _) => format!("; did you mean [{section}]?"),
        (None, Some(near)) => format!("; did you mean `{near}`?"),
        (None, None) if known.is_empty() => "; there are no keys here".to_owned(),
        (None, None) => format!("; there are {}", known.join(", ")),
    }
}

/// Plain words for serde's types and omissions.
fn in_words(message: &str) -> String {
    if let Some((before, rest)) = message.split_once("invalid type: ")
        && let Some((found, expected)) = rest.split_once(", expected ")
    {
        return format!("{before}must be {}, not {}", name_of(expected), name_of(found));
    }
    if let Some((before, rest)) = message.split_once("invalid value: ")
        && let Some((_, expected)) = rest.split_once(", expected ")
    {
        return format!("{before}must be {}", name_of(expected));
    }
    if let Some((before, rest)) = message.split_once("unknown variant, expected ") {
        return format!("{before}must be {}", rest.replace('`', "\""));
    }
    if let Some((before, rest)) = message.split_once("missing field `") {
        return format!("{before}the key `{} is missing", rest.trim_end());
    }
    message.to_owned()
}

fn name_of(kind: &str) -> &str {
    match kind {
        "string" | "a string" | "path string" => "text in double quotes",
        "integer" | "i64" => "a whole number",
        "u32" => "a whole number from 0 to 4294967295",
        "usize" | "u64" => "a whole number that is not negative",
        "floating point" => "a number with a fraction",
        "boolean" | "a boolean" => "true or false",
        "sequence" | "a sequence" => "a list in brackets",
        "map" | "a map" => "a table",
        other => other,
    }
}

/// Removes the value from messages of serde such as `invalid type: string "secret", expected a map`.
pub(super) fn without_value(message: &str) -> String {
    for (start, has_kind) in [("invalid type:", true), ("invalid value:", true), ("unknown variant", false)] {
        let Some((before, rest)) = message.split_once(start) else { continue };
        let (found, expected) = rest.rsplit_once(", expected ").unwrap_or((rest, "something else"));
        let end = found.find(['"', '`']).unwrap_or(found.len());
        let kind = if has_kind { found[..end].trim_end() } else { "" };
        return format!("{before}{start}{kind}, expected {expected}");
    }
    message.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_lose_the_value_and_keep_its_kind() {
        for (message, expected) in [
            (
                r#"invalid type: string "a, expected b", expected a map"#,
                "invalid type: string, expected a map",
            ),
            ("invalid type: integer `7`, expected a string", "invalid type: integer, expected a string"),
            ("invalid type: map, expected a string", "invalid type: map, expected a string"),
            ("unknown variant `x`, expected `a` or `b`", "unknown variant, expected `a` or `b`"),
            ("invalid value: integer `-1`, expected usize", "invalid value: integer, expected usize"),
            ("unknown field `x`, expected `y`", "unknown field `x`, expected `y`"),
        ] {
            assert_eq!(without_value(message), expected);
        }
    }

    #[test]
    fn messages_are_in_plain_words_with_an_example() {
        for (message, key, expected) in [
            (
                "invalid type: integer `1`, expected a string",
                "interval",
                "must be text in double quotes, not a whole number; for example interval = \"1s\"",
            ),
            (
                "unknown field `intervall`, expected one of `interval`, `metric_prefix`",
                "intervall",
                "unknown key `intervall`; did you mean `interval`?",
            ),
            (
                "unknown field `proc_scan`, expected one of `interval`, `metric_prefix`",
                "proc_scan",
                "unknown key `proc_scan`; did you mean [sources.proc_scan]?",
            ),
            (
                "unknown field `reader`, expected one of `interval`, `metric_prefix`",
                "reader",
                "unknown key `reader`; did you mean `readers`?",
            ),
            ("unknown field `x`, expected `proc` or `sys`", "host.x", "unknown key `x`; there are proc, sys"),
            ("unknown field `x`, there are no fields", "a.x", "unknown key `x`; there are no keys here"),
            (
                "unknown variant `xdp`, expected one of `auto`, `tcx`",
                "readers.tap_ebpf.attach",
                "must be one of \"auto\", \"tcx\"; for example attach = \"auto\"",
            ),
            ("missing field `id`", "sources.static_list.vms", "the key `id` is missing"),
            (
                "invalid value: integer `-1`, expected usize",
                "exporters.prometheus.label_budget",
                "must be a whole number that is not negative; for example label_budget = 0",
            ),
            ("invalid value: integer `-1`, expected u32", "a", "must be a whole number from 0 to 4294967295"),
        ] {
            assert_eq!(explain(message, key), expected);
        }
    }

    #[test]
    fn keys_are_found_in_nested_tables() {
        let text = "a = 1\n[b]\nc = { d = 2, \"e f\" = [3] }\n[[g]]\nh = 4\n";
        for (what, key) in [("1", "a"), ("d = 2", "b.c.d"), ("2", "b.c.d"), ("3", "b.c.e f"), ("4", "g.h")] {
            let at = text.find(what).unwrap();
            assert_eq!(key_at(text, &(at..at + 1)), key, "{what}");
        }
        assert_eq!(key_at("= broken", &(0..1)), "");
    }

    /// Each way to write the header of a push wrongly.
    #[cfg(feature = "daemon")]
    #[test]
    fn no_refusal_repeats_a_secret() {
        use std::path::Path;

        use crate::app::App;
        use crate::config::Config;

        for line in [
            "headers = { authorization = \"Bearer SECRET\" ",
            "headers = \"Bearer SECRET\"",
            "headers = { authorization = [\"Bearer SECRET\"] }",
            "headers = { authorization = \"Bearer SECRET\", x = 1 }",
            "headers = { authorization = \"Bearer SECRET\\n\" }",
            "authorization = \"Bearer SECRET\"",
            "authorization: Bearer SECRET==",
            "SECRET==",
            "resource = \"SECRET\"",
            "endpoint = \"htp://user:SECRET@collector\"",
            "enabled = \"SECRET\"",
            "protocol = \"SECRET\"",
            "compression = \"SECRET\"",
            "timeout = \"SECRET\"",
            "timeout = \"1SECRET\"",
            "over_budget = \"SECRET\"",
        ] {
            let text = format!("[exporters.otlp]\n{line}\n");
            let refused = Config::parse(Path::new("test.toml"), &text).and_then(App::new).unwrap_err();
            let shown = format!("{refused} {refused:?}");
            assert!(!shown.contains("SECRET"), "{line}: {shown}");
            assert!(shown.starts_with("test.toml:"), "{line}: {shown}");
        }
    }
}
