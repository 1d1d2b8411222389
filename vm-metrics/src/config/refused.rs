//! Finds the key of a refused line, and keeps its value out of the error.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// The dotted name of the key at a place in the text; empty where there is none.
pub(super) fn key_at(text: &str, place: &Range<usize>) -> String {
    match DeTable::parse(text) {
        Ok(table) if !place.is_empty() => find(table.get_ref(), place.start).unwrap_or_default(),
        // The lines of a text that is no TOML have no keys that can be told from values.
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

/// Takes the value out of the messages of serde that repeat one: `invalid type: string "secret", expected a map`.
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
