//! Separates the code of a Rust file from its comments, with line numbers kept.

use std::ops::Range;

/// A Rust file by its path below the root of the workspace.
#[derive(Debug, Default)]
pub struct Source {
    pub path: String,
    /// The whole text.
    pub text: String,
    /// The text with blanks in place of comments and of the contents of strings.
    pub code: String,
    /// The same without tests: the code of the daemon.
    pub shipped: String,
    /// The code of the daemon with its strings.
    pub shipped_strings: String,
    /// Lines that hold nothing but a comment: line number, and the text with its slashes.
    pub comments: Vec<(usize, String)>,
}

impl Source {
    pub fn parse(path: &str, text: &str) -> Self {
        let mut literal = text.as_bytes().to_vec();
        let mut code = text.as_bytes().to_vec();
        for (kind, range) in tokens(text.as_bytes()) {
            blank(&mut code[range.clone()]);
            if kind == Kind::Comment {
                blank(&mut literal[range]);
            }
        }
        let (literal, code) = (lossless(literal), lossless(code));
        let lines = text.lines().zip(literal.lines()).zip(1..);
        let comments = lines
            .filter(|((line, literal), _)| literal.trim().is_empty() && line.trim_start().starts_with("//"))
            .map(|((line, _), number)| (number, line.trim().to_owned()));
        let tests = test_items(&code);
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            comments: comments.collect(),
            shipped: without(&code, &tests),
            shipped_strings: without(&literal, &tests),
            code,
        }
    }

    /// True for a file that is compiled for tests only.
    pub fn is_test(&self) -> bool {
        let mut parts = self.path.split(['/', '.']);
        parts.any(|part| part == "tests" || part.ends_with("_tests"))
    }

    /// The types that the file defines: line, byte and name.
    pub fn types(&self) -> Vec<(usize, usize, &str)> {
        let mut types = Vec::new();
        for keyword in ["struct ", "enum ", "union ", "trait ", "type "] {
            for (at, _) in self.code.match_indices(keyword) {
                let name = first_name(&self.code[at + keyword.len()..]);
                let whole =
                    !self.code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
                if whole && !name.is_empty() {
                    types.push((line_at(&self.code, at), at, name));
                }
            }
        }
        types.sort_unstable();
        types
    }
}

/// Number of the line that holds a byte.
pub fn line_at(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The identifier at the head of a text.
pub fn first_name(text: &str) -> &str {
    let end = text.find(|character: char| !character.is_alphanumeric() && character != '_');
    &text[..end.unwrap_or(text.len())]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Comment,
    /// Without the quotes.
    String,
}

fn blank(bytes: &mut [u8]) {
    bytes.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
}

fn lossless(bytes: Vec<u8>) -> String {
    // Whole characters became blanks.
    String::from_utf8_lossy(&bytes).into_owned()
}

fn without(text: &str, ranges: &[Range<usize>]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    ranges.iter().for_each(|range| blank(&mut bytes[range.clone()]));
    lossless(bytes)
}

/// The items behind `#[cfg(test)]`: to the end of their braces, or to a semicolon.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let end = |start: usize| {
        let mut depth = 0_usize;
        for (at, character) in code[start..].char_indices() {
            match character {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && matches!(character, '}' | ';' | ',') {
                return start + at + 1;
            }
        }
        code.len()
    };
    code.match_indices("#[cfg(test)]").map(|(start, _)| start..end(start)).collect()
}

/// Comments and contents of strings, in their order.
fn tokens(text: &[u8]) -> Vec<(Kind, Range<usize>)> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let end = match rest {
            [b'/', b'/', ..] => at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
            [b'/', b'*', ..] => at + find(rest, b"*/").map_or(rest.len(), |end| end + 2),
            [b'"', ..] => {
                let range = string(text, at);
                at = range.end + 1;
                tokens.push((Kind::String, range));
                continue;
            }
            [b'\'', b'\\', _, ..] => {
                at += 3 + rest[3..].iter().position(|byte| *byte == b'\'').unwrap_or(0) + 1;
                continue;
            }
            // A quote in a character, not the beginning of a string.
            [b'\'', b'"', b'\'', ..] => {
                at += 3;
                continue;
            }
            _ => {
                at += 1;
                continue;
            }
        };
        tokens.push((Kind::Comment, at..end));
        at = end;
    }
    tokens
}

/// What stands between the quotes of a string, also of a raw one.
fn string(text: &[u8], quote: usize) -> Range<usize> {
    let start = quote + 1;
    let hashes = text[..quote].iter().rev().take_while(|byte| **byte == b'#').count();
    let raw = quote > hashes && text[quote - hashes - 1] == b'r';
    if raw {
        let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
        return start..find(&text[start..], &close).map_or(text.len(), |end| start + end);
    }
    let mut end = start;
    while end < text.len() && text[end] != b'"' {
        end += if text[end] == b'\\' { 2 } else { 1 };
    }
    start..end.min(text.len())
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_no_code() {
        let text = "let a = \"use x\"; // use y\n/* use\n z */ let b = r#\"a \" use\"#;\n";
        let source = Source::parse("a.rs", text);
        assert_eq!(source.code, "let a = \"     \";         \n      \n      let b = r#\"       \"#;\n");
        assert_eq!(
            source.shipped_strings,
            "let a = \"use x\";         \n      \n      let b = r#\"a \" use\"#;\n"
        );
    }

    #[test]
    fn quoted_characters_open_no_string() {
        let source = Source::parse("a.rs", "f('\"', '\\'', '\\\\', b'\"'); // x\nfn g<'a>() {}\n");
        assert_eq!(source.code.trim_end(), "f('\"', '\\'', '\\\\', b'\"');     \nfn g<'a>() {}");
    }

    #[test]
    fn tests_are_not_shipped() {
        let text =
            "#[cfg(test)]\nuse a::b;\nfn c() {}\n#[cfg(test)]\nfn d(x: [u8; 2]) { e({}) }\nfn f() {}\n";
        let source = Source::parse("a.rs", text);
        assert_eq!(source.shipped.split_whitespace().collect::<Vec<_>>().join(" "), "fn c() {} fn f() {}");
        assert_eq!(source.shipped.lines().count(), text.lines().count());
    }

    #[test]
    fn only_lines_of_comment_are_comments() {
        let source = Source::parse("a.rs", "//! A.\nlet a = \"//\"; // b\n    /// C.\nlet d = \"\n// e\";\n");
        assert_eq!(source.comments, [(1, "//! A.".to_owned()), (3, "/// C.".to_owned())]);
    }
}
